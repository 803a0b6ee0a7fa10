"""`status`: of one migration, or of several, page by page."""

import argparse
import re
from datetime import datetime, timedelta
from typing import Any

from vdpad.cli.failures import Usage
from vdpad.cli.interrupts import run_interruptibly
from vdpad.cli.progress import waiting
from vdpad.cli.transport import client_of
from vdpad.cli.whose import NOT_A_DAEMON, if_not_of
from vdpad.methods import Methods
from vdpad.wire.addresses import BACK_END_INTERFACE

# How many a reply tells at most, and vdpactl where it is not said: docs/api.md.
_PAGE = 1000
_SHOWN = 100

_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `vdpactl status`."""
    parser.add_argument(
        "migration",
        nargs="?",
        help="the caller's own name for it (default: a line for each there is)",
    )
    parser.add_argument("--failed", action="store_true", help="of those that failed")
    parser.add_argument(
        "--since",
        type=_since,
        metavar="WHEN",
        help="of those that began since then: 90m, 12h, 2d ago, or a date with or without a time",
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help=f"the newest N (default: {_SHOWN}); the last line says if there are more",
    )


def status(arguments: argparse.Namespace) -> Any:
    """What became of one migration; without one, `operations`, and whether there are `more`.

    `total` counts all in these states, since whenever they began.

    Raises:
        Usage: options for a list, and a migration.
        Refused, Unreachable, CannotSend: as the client raises them.
    """
    if arguments.migration is not None and (
        arguments.failed or arguments.since is not None or arguments.limit is not None
    ):
        raise Usage("--failed, --since and --limit choose from a list, and a migration is one")

    async def ask() -> Any:
        async with client_of(arguments) as client:
            if arguments.migration is not None:
                return await client.status(arguments.migration)
            states = ["failed"] if arguments.failed else None
            return await _listed(client, states, arguments.since, arguments.limit or _SHOWN)

    with (
        if_not_of(arguments.socket, BACK_END_INTERFACE, NOT_A_DAEMON),
        waiting("waiting for the reply", arguments.timeout),
    ):
        return run_interruptibly(ask())


async def _listed(
    client: Methods, states: list[str] | None, since: datetime | None, most: int
) -> dict[str, Any]:
    listed: list[dict[str, Any]] = []
    while True:
        page = await client.operations(
            states=states,
            limit=min(_PAGE, most + 1 - len(listed)),
            after=listed[-1]["migration"] if listed else None,
        )
        new = [each for each in page["operations"] if since is None or _began(each) >= since]
        listed += new
        is_last = len(new) < len(page["operations"]) or not new or len(listed) == page["total"]
        if is_last or len(listed) > most:
            return {
                "operations": listed[:most],
                "total": page["total"],
                "more": len(listed) > most,
            }


def _began(summary: dict[str, Any]) -> datetime:
    """When it began; long ago, where an older vdpad did not write it down."""
    return datetime.fromisoformat(summary["began"] or "0001-01-02T00:00:00Z")


def _since(text: str) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return datetime.now().astimezone() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        # Without a zone it is this host's.
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"expected 90m, 12h, 2d, or a date such as 2026-11-27 or 2026-11-27T20:00, got {text}"
        ) from None


def _limit(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return int(text)
