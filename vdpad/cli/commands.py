"""The command line of vdpactl: all its commands, in the order in which help tells of them."""

import argparse

import vdpad
from vdpad.cli import help_text
from vdpad.cli.arguments import Parser
from vdpad.cli.exit_codes import MEANINGS
from vdpad.cli.host_commands import HOST_COMMANDS
from vdpad.cli.offline_commands import OFFLINE_COMMANDS
from vdpad.cli.options import set_defaults, with_common_options
from vdpad.cli.state_commands import STATE_COMMANDS


def command_line() -> argparse.ArgumentParser:
    """The parser of all of them."""
    parser = Parser(
        prog="vdpactl",
        formatter_class=help_text.WithSections,
        description=help_text.paragraph(
            "Asks a vdpad to check, prepare and restore virtio-net device states; reads, converts "
            "and compares them without one."
        ),
        epilog=help_text.section("Exit codes", [(str(at), text) for at, text in MEANINGS.items()]),
    )
    set_defaults(parser)
    parser.set_defaults(lack=lambda _: "", is_only_copy=lambda _: False)
    with_common_options(parser)
    parser.add_argument("--version", action="version", version=f"vdpactl {vdpad.__version__}")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for add in (*HOST_COMMANDS, *STATE_COMMANDS, *OFFLINE_COMMANDS):
        add(methods)
    return parser
