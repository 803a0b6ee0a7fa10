"""vdpactl: asks a vdpad or a back end, and works on states without one, for people and for scripts.

Which commands there are commands.py says, and adding.py what each is made of. Here is what happens
to any: it is run, and its result shown, or why there is none.
"""

import argparse
import json
import sys
from importlib import import_module
from typing import Any

from vdpad.cli import show, terminal
from vdpad.cli.arguments import refuse_stdin_twice
from vdpad.cli.commands import command_line
from vdpad.cli.exit_codes import FAILED, exit_code_of
from vdpad.cli.failures import InvalidState
from vdpad.cli.program import as_program
from vdpad.cli.terminal import NotGiven
from vdpad.client import Refused
from vdpad.errors import VdpadError


def main(argv: list[str] | None = None) -> int:
    """Runs one command and gives the exit code; an interrupt ends the process."""
    with as_program():
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    terminal.set_up()
    try:
        arguments = _parsed(argv)
    except NotGiven as error:
        terminal.tell(str(error))
        return FAILED
    try:
        refuse_stdin_twice(arguments)
        if arguments.backend is not None:
            _back_end().ask_instead(arguments)
        result = arguments.run(arguments)
    except VdpadError as error:
        return _failed(error, as_json=arguments.json)
    return _done(result, arguments)


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """The command line; what a method needs unless a back end is asked, argparse cannot say."""
    parser = command_line()
    arguments = parser.parse_args(argv)
    if arguments.backend is None and (lack := arguments.lack(arguments)):
        parser.error(f"{arguments.method}: expected {lack}")
    return arguments


def _done(result: Any, arguments: argparse.Namespace) -> int:
    """Shows a result; the exit code is for what was done, whoever reads it."""
    code = int(arguments.exit_code(result))
    text = json.dumps(result, indent=2) if arguments.json else arguments.show(result)
    try:
        if text and not terminal.give(text) and arguments.is_only_copy(result):
            raise NotGiven("standard output: nobody reads it, and the result is lost")
    except NotGiven as error:
        terminal.tell(str(error))
        return code or FAILED
    return code


def _failed(error: VdpadError, *, as_json: bool) -> int:
    """Says why a command failed."""
    try:
        _show_failure(error, as_json=as_json)
    except NotGiven as lost:
        terminal.tell(str(lost))
    return exit_code_of(error)


def _show_failure(error: VdpadError, *, as_json: bool) -> None:
    match error:
        case InvalidState():
            _show_refusal(_as_refusal(error), as_json=as_json)
        case Refused():
            _show_refusal(error, as_json=as_json)
        case _:
            terminal.tell(str(error))


def _as_refusal(error: InvalidState) -> Refused:
    """What the daemon would have said to such a state."""
    data = {"kind": "invalid-params", "problems": error.problems}
    return Refused(-32602, str(error), data)


def _show_refusal(error: Refused, *, as_json: bool) -> None:
    if as_json:
        refusal = {"code": error.code, "message": str(error), "data": error.data}
        terminal.give(json.dumps({"error": refusal}, indent=2))
        return
    terminal.tell(f"{error.kind}: {error}")
    if "problems" in error.data:
        terminal.say(show.problems(error.data["problems"], to=sys.stderr))
    if "report" in error.data:
        terminal.give(show.report(error.data["report"]))


def _back_end() -> Any:
    return import_module("vdpad.cli.back_end")


if __name__ == "__main__":
    sys.exit(main())
