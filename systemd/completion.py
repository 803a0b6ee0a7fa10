"""Completion of the programs' command lines, for bash, zsh and fish: `completion.py FOLDER`.

shtab builds it from the parsers, when vdpad is installed. What only a daemon or back ends know is
asked of them when it is completed, by vdpactl at their usual sockets: migrations, the host's
devices, its back ends. Where none answers within a second nothing is completed. Names are the
daemon's or other users', and shells expand what they complete, so no letter gets through that no
such name has.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab

from vdpad.cli import arguments, commands, vdpad, vhost_user_options

# Where each shell looks below PREFIX/share, by Debian's packages of them.
_PLACES = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/vendor-completions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}

_FILES = (arguments.path, arguments.file_name, arguments.textfile)

# By which method names are told, and under which key.
_TOLD = {
    "migrations": ("status --limit 1000", "migration"),
    "devices": ("devices", "name"),
    "back_ends": ("backends", "name"),
}


def _ask(names: str) -> str:
    """A shell's command that prints these, a line each."""
    method, key = _TOLD[names]
    line = f'^ *"{key}": "\\([A-Za-z0-9._:/-]*\\)",*$'
    return f"vdpactl --timeout 1 --json {method} </dev/null 2>/dev/null | sed -n 's#{line}#\\1#p'"


# bash takes a name with a colon for three words; bash-completion knows how to put them together.
_COLONS = """
_{name}_words() {{
  local cur words cword
  if declare -F _get_comp_words_by_ref __ltrim_colon_completions >/dev/null; then
    _get_comp_words_by_ref -n : cur words cword
    local COMP_WORDS=("${{words[@]}}") COMP_CWORD=$cword
    _shtab_{name}
    __ltrim_colon_completions "$cur"
  else
    _shtab_{name}
  fi
}}

complete -o bashdefault -F _{name}_words {program}
"""


def _from_daemon(names: str) -> dict[str, Any]:
    """What shtab takes for an argument's completion."""
    function, asked = f"_vdpactl_{names}", _ask(names)
    return {
        "bash": function,
        "zsh": function,
        "fish": f"({function})",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "$({asked})" -- "$1"\n}}',
            "zsh": f'{function}() {{\n  compadd -- ${{(f)"$({asked})"}}\n}}',
            "fish": f"function {function}\n  {asked}\nend",
        },
    }


_MIGRATIONS = _from_daemon("migrations")
_DEVICES = _from_daemon("devices")
_BACK_ENDS = _from_daemon("back_ends")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)


def _completion_of(action: argparse.Action) -> Any:
    """How what an argument takes is completed; None where shtab knows, or nobody does."""
    positional = not action.option_strings
    if action.dest == "migration":
        return _MIGRATIONS
    if action.dest == "vhost_vdpa" or (action.dest == "device" and positional):
        return _DEVICES
    if action.dest == "backend":
        return _BACK_ENDS
    return shtab.FILE if action.type in _FILES else None


def _completed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    for action in _actions(parser):
        how = _completion_of(action)
        if how is not None:
            action.complete = how  # type: ignore[attr-defined]
    return parser


def main(folder: Path) -> None:
    """Writes all of it below a folder, as it is to lie below PREFIX/share."""
    for command_line in (
        commands.command_line,
        vdpad.command_line,
        vhost_user_options.command_line,
    ):
        for shell, place in _PLACES.items():
            # A shell's script is about one parser, which it may change.
            parser = _completed(command_line())
            file = folder / place.format(parser.prog)
            file.parent.mkdir(parents=True, exist_ok=True)
            script = shtab.complete(parser, shell)
            if shell == "bash":
                name = parser.prog.replace("-", "_")
                script += _COLONS.format(name=name, program=parser.prog)
            file.write_text(script)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
