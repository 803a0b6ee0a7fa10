"""vdpad: runs the daemon in the foreground."""

import argparse
import asyncio
import faulthandler
import sys
from functools import partial
from pathlib import Path

import vdpad
from vdpad.cli import terminal
from vdpad.daemon.configuration import load_settings
from vdpad.daemon.daemon import run
from vdpad.errors import VdpadError
from vdpad.service import log


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 1 where it could not start."""
    terminal.take_any_text()
    arguments = _parser().parse_args(argv)
    load = partial(load_settings, arguments.config, socket=arguments.socket)
    try:
        if arguments.check_config:
            load()
            return 0
        # Where the loop is stuck, the watchdog's SIGABRT tells in the log.
        faulthandler.enable()
        log.configure(verbose=arguments.verbose)
        asyncio.run(run(load))
    except VdpadError as error:
        print(f"vdpad: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vdpad", description=vdpad.__doc__)
    parser.add_argument("--socket", type=Path, metavar="PATH", help="where to listen")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, in TOML")
    parser.add_argument(
        "--check-config", action="store_true", help="say whether the settings can be used, and end"
    )
    parser.add_argument("--verbose", action="store_true", help="log debugging events too")
    parser.add_argument("--version", action="version", version=f"vdpad {vdpad.__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
