"""What is public is what docs/architecture.md says: `__all__`, and all that it leads to."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from tests.support.package import trees
from tests.support.pages import quoted, table

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()

PUBLIC = {quoted(module)[0]: quoted(names) for module, names in table(PAGE, "module", "names")}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_has_the_names_that_are_told(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__all__ == PUBLIC[module]
    assert all(hasattr(found, name) for name in found.__all__)


def _all_in(tree: ast.Module) -> bool:
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


def test_no_other_module_says_that_it_is_public() -> None:
    assert {module for module, tree in trees().items() if _all_in(tree)} == PUBLIC.keys()


# --- what public things lead to ---


def _public_objects() -> list[tuple[str, Any]]:
    return [
        (f"{module}.{name}", getattr(importlib.import_module(module), name))
        for module, names in PUBLIC.items()
        for name in names
    ]


def _hints(thing: Any) -> Iterator[Any]:
    """What the signatures and fields of a class or a function say that they take and give."""
    if inspect.isclass(thing):
        yield from get_type_hints(thing).values()
        for name, each in inspect.getmembers(thing, inspect.isfunction):
            if not name.startswith("_") and each.__module__.startswith("vdpad"):
                yield from get_type_hints(each).values()
    elif inspect.isfunction(thing):
        yield from get_type_hints(thing).values()


def _classes_in(hint: Any) -> Iterator[type]:
    if inspect.isclass(hint) and hint.__module__.startswith("vdpad"):
        yield hint
    for each in get_args(hint):
        yield from _classes_in(each)


def _id(of: Any) -> str:
    """The name, and of the thing nothing: its text is another in each process."""
    return of if isinstance(of, str) else ""


@pytest.mark.parametrize(("name", "thing"), _public_objects(), ids=_id)
def test_what_is_public_leads_to_nothing_that_is_not(name: str, thing: Any) -> None:
    public = [each for _, each in _public_objects()]
    led_to = {each for hint in _hints(thing) for each in _classes_in(hint)}
    assert [each for each in led_to if each not in public] == []


@pytest.mark.parametrize(("name", "thing"), _public_objects(), ids=_id)
def test_what_is_public_says_what_it_is(name: str, thing: Any) -> None:
    assert not callable(thing) or thing.__doc__


# --- examples ---


def _example_imports(text: str) -> Iterator[tuple[str, str]]:
    for module, names in re.findall(r"^\s*(?:>>> )?from (vdpad[\w.]*) import (.+)$", text, re.M):
        yield from ((module, name.strip()) for name in names.split(","))


def _pages() -> list[str]:
    """The docs, and the Python beside them; not what Python compiles there meanwhile."""
    found = [each for kind in ("md", "py") for each in ROOT.glob(f"docs/**/*.{kind}")]
    return ["README.md", *sorted(str(each.relative_to(ROOT)) for each in found)]


@pytest.mark.parametrize("page", _pages())
def test_examples_use_only_what_is_public(page: str) -> None:
    for module, name in _example_imports((ROOT / page).read_text()):
        assert name in PUBLIC.get(module, ()), f"{module}.{name}"


def test_there_are_examples() -> None:
    pages = [ROOT / "README.md", ROOT / "docs" / "formats.md", ROOT / "docs/examples/demo.py"]
    assert all(list(_example_imports(page.read_text())) for page in pages)
