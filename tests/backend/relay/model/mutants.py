"""The relay as it is, and with one thing of it changed in its text."""

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from vdpad.backend.relay import relay, written


@dataclass(frozen=True)
class Mutant:
    """The relay's two modules, in copies of their own, whose names may be set."""

    relay: Any
    written: Any


@dataclass(frozen=True)
class Change:
    """A change of a module's text."""

    module: ModuleType
    before: str
    """Stands there once."""
    after: str


@dataclass(frozen=True)
class Changes:
    """What a mutation changes; nothing, where it is not of the relay."""

    changes: tuple[Change, ...] = field(default=())

    def mutant(self) -> Mutant:
        """The modules with these changes."""
        changed = {module: self._load(module) for module in (relay, written)}
        vars(changed[relay])["WrittenBuffers"] = vars(changed[written])["WrittenBuffers"]
        return Mutant(changed[relay], changed[written])

    def _load(self, module: ModuleType) -> ModuleType:
        assert module.__file__ is not None
        text = Path(module.__file__).read_text()
        for change in self.changes:
            if change.module is module:
                assert text.count(change.before) == 1, change
                text = text.replace(change.before, change.after)
        copy = ModuleType(module.__name__)
        exec(compile(text, module.__file__, "exec"), vars(copy))
        return copy
