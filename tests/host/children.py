"""Processes that stand in for the one that asks the kernel."""

import json
import sys
from typing import Any

SILENT = "import time; print('ready', flush=True); time.sleep(1000)"
"""It can be asked, and never answers: so it looks where the kernel is stuck."""


def saying(*answers: Any) -> str:
    """One that gives these answers, whatever it is asked, and then ends."""
    lines = [json.dumps(each) for each in answers]
    return (
        "import sys\nprint('ready', flush=True)\n"
        f"for answer in {lines!r}:\n"
        "    if not sys.stdin.readline(): break\n"
        "    print(answer, flush=True)\n"
    )


def command(code: str) -> tuple[str, ...]:
    """How a process that runs this code is started."""
    return (sys.executable, "-S", "-c", code)
