"""The program: one story on one device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from . import asleep, back_end, control, data, followed, logged, switched
from .telling import Json, tell

STORIES: dict[str, Callable[[Path, Path], Json]] = {
    each.__name__: each
    for each in (
        *(data.packets, data.older_kernel, data.moved_ring, data.unmapped),
        *(control.look, control.pinned, control.replayed, control.refusals, control.silence),
        *(control.late_call, control.config, control.config_call),
        *(back_end.commands, back_end.told_of, back_end.back_end_packets, back_end.removed),
        *(back_end.isolation, asleep.asleep, followed.followed),
        *(logged.logged, logged.restarted),
        *(switched.switched, switched.unplaced),
    )
}


if __name__ == "__main__":
    node, story, folder = sys.argv[1:]
    tell(end=STORIES[story](Path(node), Path(folder)))
