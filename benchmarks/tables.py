"""The tables of the benchmarks, printed as docs/benchmarks.md has them, and drawn beside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

DRAWN = Path("build/plots")
"""Where a run draws its tables; docs/pictures has those of docs/benchmarks.md (`make plots`)."""


def show(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table, and draws it where it is one of those that are drawn."""
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True), end="\n\n")
    # Here, since it takes half a second that no benchmark's process needs while it measures.
    from benchmarks.plots import draw

    for path in draw(headers, [[str(each) for each in row] for row in rows], DRAWN):
        print(f"drawn: {path}", file=sys.stderr)
