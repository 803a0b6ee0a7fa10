"""Whatever the package raises on purpose is a VdpadError.

Every `raise` is read. What it raises is looked up by name: a class, a function by the class that it
says it returns, and a method by what all methods of that name in the package return.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

import pytest

from tests.support.package import PATHS, trees
from vdpad.errors import VdpadError

OTHERS = {
    ("vdpad.cli", "ArgumentTypeError"): "argparse's word for a value that makes no sense",
    ("vdpad", "PydanticCustomError"): "a validator's error; whoever validates makes Problems of it",
    ("vdpad", "invalid"): "pydantic's ValidationError: the same for places below the validator's",
    ("vdpad.virtio", "NotImplementedError"): "Python's word for what each subclass has to give",
    ("vdpad.service.endpoints.udp", "BlockingIOError"): "a socket's word for nothing to be read",
}
"""What is raised beside: in which room, by which name, and why."""


class Raise(NamedTuple):
    """One `raise` that does not merely pass on what was caught."""

    module: str
    line: int
    name: str
    """Of the class, function or method, without what it is called on."""
    on_object: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: {self.name}"


def _raises(module: str, tree: ast.Module) -> Iterator[Raise]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(what, ast.Attribute):
                yield Raise(module, node.lineno, what.attr, on_object=True)
            else:
                yield Raise(module, node.lineno, ast.unparse(what), on_object=False)


@cache
def modules() -> dict[str, ModuleType]:
    """All of the package, by name."""
    return {name: importlib.import_module(name) for name in PATHS}


@cache
def raises() -> list[Raise]:
    """All of the package."""
    return [each for name, tree in trees().items() for each in _raises(name, tree)]


def _is(each: Raise, room: str, name: str) -> bool:
    return each.name == name and f"{each.module}.".startswith(f"{room}.")


def _methods(name: str) -> list[Any]:
    """All methods that are defined under this name."""
    classes = {
        kind
        for module in modules().values()
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ in modules()
    }
    named = [vars(kind)[name] for kind in classes if name in vars(kind)]
    return [each for each in named if inspect.isfunction(each) and each.__name__ == name]


def _is_ours(what: Any) -> bool:
    """Whether this is a VdpadError's class, or returns such an error by what it says."""
    if inspect.isclass(what):
        return issubclass(what, VdpadError)
    returned = get_type_hints(what).get("return") if inspect.isfunction(what) else None
    return inspect.isclass(returned) and issubclass(returned, VdpadError)


def _stray(each: Raise, module: ModuleType) -> bool:
    candidates = _methods(each.name) if each.on_object else [getattr(module, each.name, None)]
    return not candidates or not all(map(_is_ours, candidates))


def test_every_deliberate_error_is_a_vdpad_error() -> None:
    strays = [
        str(each)
        for each in raises()
        if not any(_is(each, *other) for other in OTHERS) and _stray(each, modules()[each.module])
    ]
    assert strays == []


@pytest.mark.parametrize(("room", "name"), OTHERS)
def test_each_exception_to_that_is_in_use(room: str, name: str) -> None:
    assert any(_is(each, room, name) for each in raises())


@pytest.mark.parametrize(
    ("text", "stray"),
    [
        ("raise ValueError('x')", True),
        ("raise ValueError", True),
        ("raise OSError(1, 'x') from error", True),
        ("raise why(error)", True),
        ("raise error.nobody_has_this('x')", True),
        ("raise VdpadError('x')", False),
        ("raise NotWritten", False),
        ("raise self.wrong('x', 'y')", False),
        ("def f():\n    raise unknown", True),
    ],
)
def test_what_would_be_found(text: str, stray: bool) -> None:
    (found,) = _raises("vdpad.errors", ast.parse(text))
    assert _stray(found, modules()["vdpad.errors"]) == stray


def test_passing_on_what_was_caught_is_no_error_of_ours() -> None:
    assert list(_raises("a", ast.parse("try: f()\nexcept OSError:\n    raise"))) == []
