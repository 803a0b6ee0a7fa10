"""One thing for a name: no class of the package has a name that something else has too."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping

from tests.support.package import trees


def _classes(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name


def _aliases(tree: ast.Module) -> Iterator[str]:
    """What a module gives a class's kind of name by assignment, as types and type variables are."""
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name) and not target.id.isupper():
                yield target.id


def _shared(modules: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """The public classes' names that stand for more than one thing, each with where it does."""
    classes: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules.items():
        for name in _classes(tree):
            classes[name].append(module)
    for module, tree in modules.items():
        for name in _aliases(tree):
            if name in classes:
                classes[name].append(f"{module} (an alias)")
    return {
        name: places
        for name, places in classes.items()
        if len(places) > 1 and not name.startswith("_")
    }


def test_no_two_public_classes_share_a_name() -> None:
    assert _shared(trees()) == {}


def test_what_would_be_found() -> None:
    modules = {
        "a": ast.parse("class Found: pass\nclass _Own: pass\nclass Alone: pass"),
        "b": ast.parse("def f():\n    class Found: pass\nclass _Own: pass"),
        "c": ast.parse("Found = tuple[int, str]\nALL = 1"),
    }
    assert _shared(modules) == {"Found": ["a", "b", "c (an alias)"]}
