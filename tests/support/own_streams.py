"""Writes on its standard streams, and into FILE what they are: `python -m … FILE`."""

import json
import sys
from pathlib import Path
from typing import Any, TextIO


def _told(stream: TextIO | None) -> dict[str, Any] | None:
    if stream is None:
        return None
    names = ("encoding", "errors", "line_buffering", "write_through")
    told = {name: getattr(stream, name) for name in names}
    return {"fileno": stream.fileno(), "buffer": type(stream.buffer).__name__, **told}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps([*map(_told, (sys.stdin, sys.stdout, sys.stderr))]))
    print("a result")
    print("a remark", file=sys.stderr)
