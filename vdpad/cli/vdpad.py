"""vdpad: runs the daemon in the foreground."""

import argparse
import asyncio
import faulthandler
import sys
from functools import partial

import vdpad
from vdpad.cli import help_text, terminal
from vdpad.cli.arguments import Parser, path
from vdpad.cli.program import as_program
from vdpad.daemon.configuration import load_settings
from vdpad.daemon.process import run
from vdpad.errors import VdpadError
from vdpad.service import log
from vdpad.wire.addresses import DEFAULT_SOCKET, DEFAULT_VARLINK

_SIGNALS = [
    ("SIGTERM", "end, once the commits under way have ended; SIGINT too, and a second one at once"),
    ("SIGHUP", "read the settings again"),
]
_EXIT_CODES = [
    ("0", "it was told to end; --check-config found nothing"),
    ("1", "it could not start, or the settings cannot be used, and it says why"),
    ("2", "wrong options"),
]
_FILES = [
    (str(DEFAULT_VARLINK), "where requests come in over connections (Varlink)"),
    (str(DEFAULT_SOCKET), "where they come in by datagram"),
    (
        "/etc/vdpad/vdpad.toml, /etc/vdpad/conf.d/*.toml",
        "the service's settings, and drop-ins laid over them: vdpad.toml(5)",
    ),
    ("/run/vdpad/records/operations", "what operations came to, where systemd runs vdpad"),
    ("/usr/lib/vdpad/systemd/", "what gives the service devices, other hosts, metrics"),
    ("/usr/share/doc/vdpad/operating.md", "the operator's page: access, journal, failures, limits"),
]
_EXAMPLES = [
    (
        "try it, as any user, on the software device sim0 that it has:",
        "vdpad --socket /tmp/vdpad.sock",
    ),
    ("ask it, from another terminal:", "vdpactl --socket /tmp/vdpad.sock info"),
    ("as a service, which the first request starts:", "systemctl enable --now vdpad.socket"),
    ("before a reload or a restart:", "vdpad --check-config --config /etc/vdpad/vdpad.toml"),
    ("what became of a migration, and what to do:", "journalctl -x VDPAD_MIGRATION=vm-7"),
]


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 1 where it could not start."""
    with as_program():
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    terminal.set_up()
    try:
        arguments = command_line().parse_args(argv)
        load = partial(
            load_settings, arguments.config, socket=arguments.socket, varlink=arguments.varlink
        )
        if arguments.check_config:
            load()
            return 0
        # Where the loop is stuck, the watchdog's SIGABRT tells in the log.
        faulthandler.enable()
        log.configure(verbose=arguments.verbose)
        asyncio.run(run(load))
    except VdpadError as error:
        terminal.tell(str(error), "vdpad")
        return 1
    return 0


def command_line() -> argparse.ArgumentParser:
    """The parser of vdpad's command line."""
    parser = Parser(
        prog="vdpad",
        formatter_class=help_text.WithSections,
        description=help_text.paragraph(
            "Puts back what a guest had set on its virtio-net device (MAC address, receive filter, "
            "VLANs, queues, RSS, offloads, coalescing) on the vDPA device that it was migrated to. "
            "vdpad runs in the foreground on the hosts that guests are migrated to, and serves "
            "VMMs, orchestrators and vdpactl over a socket. It logs to the journal where systemd "
            "runs it, else to standard error."
        ),
        epilog="\n\n".join(
            [
                help_text.section("signals", _SIGNALS),
                help_text.section("exit codes", _EXIT_CODES),
                help_text.section("files", _FILES),
                help_text.examples(_EXAMPLES),
                "see also: vdpad(8), vdpad.toml(5), vdpactl(1)",
            ]
        ),
    )
    parser.add_argument(
        "--socket",
        type=path,
        metavar="PATH",
        help="where to take datagrams, unless systemd hands sockets over (default: the setting "
        f"socket, which is {DEFAULT_SOCKET} if it is not given)",
    )
    parser.add_argument(
        "--varlink",
        type=path,
        metavar="PATH",
        help="where to take connections, likewise (default: the setting varlink; if it is not "
        f"given, {DEFAULT_VARLINK} beside the default --socket, and nowhere beside another)",
    )
    parser.add_argument(
        "--config",
        type=path,
        metavar="FILE",
        help="settings, in TOML; conf.d/*.toml beside it are laid over them (default: none, every "
        "setting as vdpad.toml(5) has it)",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="say whether the settings can be used, and end"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log debugging events too (default: from info on)"
    )
    parser.add_argument("--version", action="version", version=f"vdpad {vdpad.__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
