"""How a command is added to vdpactl's command line.

Each command says how it is called, and sets what vdpactl.py does with it:

    run            from the command line to plain values; where nothing is said, it asks the daemon
    show           from these to text for people
    exit_code      from these to the exit code
    lack           what argparse cannot say is missing from the command line, "" where nothing is;
                   a back end that is asked needs none of it
    is_only_copy   whether the values are lost where nobody reads them

What is not for every command is imported when it runs.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Any

from vdpad.cli.ask import ask
from vdpad.cli.exit_codes import OK
from vdpad.cli.options import with_common_options

# argparse has no public type for what add_subparsers() returns.
Subparsers = Any
Add = Callable[[Subparsers], None]
"""Adds one command."""


def add(methods: Subparsers, name: str, shower: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = methods.add_parser(name, help=text, description=text)
    with_common_options(parser)
    parser.set_defaults(run=ask, show=shower, exit_code=lambda result: OK)
    return parser


def add_offline(methods: Subparsers, name: str, shower: str, text: str) -> argparse.ArgumentParser:
    parser = add(methods, name, later("vdpad.cli.show_state", shower), f"{text}; needs no daemon")
    parser.set_defaults(run=later("vdpad.cli.states", name))
    return parser


def later(module: str, name: str) -> Callable[[Any], Any]:
    """A function that is imported when it is called: what it takes is not for every command."""

    def call(argument: Any) -> Any:
        return getattr(import_module(module), name)(argument)

    return call
