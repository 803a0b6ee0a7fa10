"""The law of imports, read from its table in docs/architecture.md, and what goes against it."""

import ast
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.support.package import PACKAGE, PATHS, trees
from tests.support.pages import quoted, table

_PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
_COLUMNS = ("room", "what it is for", "may import", "and of others")

# Of one distribution; and what only type checkers have.
_SECOND_NAMES = {"pydantic_core": "pydantic"}
_FREE = {"_typeshed", "__future__"}

_IMPORTERS = {"import_module", "__import__"}


class Import(NamedTuple):
    """That one module imports another, or something in it."""

    importer: str
    line: int
    imported: str

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: {self.imported}"


class Row(NamedTuple):
    """One row of the table; rooms as paths below vdpad/, a folder's with a slash at its end."""

    rooms: tuple[str, ...]
    may_import: tuple[str, ...]
    knows: tuple[str, ...]


def law_of(page: str) -> list[Row]:
    """The rows of the table, in their order."""
    return [
        Row(*(tuple(quoted(cell)) for cell in (rooms, may_import, knows)))
        for rooms, _, may_import, knows in table(page, *_COLUMNS)
    ]


LAW = law_of(_PAGE.read_text())


def place_of(module: str) -> str:
    """A module's path below vdpad/."""
    if module in PATHS:
        return str(PATHS[module].relative_to(PACKAGE))
    return module.removeprefix("vdpad.").replace(".", "/") + ".py"


def _within(place: str, room: str) -> bool:
    return place == room or (room.endswith("/") and place.startswith(room))


def row_of(module: str, law: Sequence[Row] = LAW) -> Row | None:
    """The row of the longest room that a module lies in."""
    place = place_of(module)
    there = [(room, row) for row in law for room in row.rooms if _within(place, room)]
    return max(there, key=lambda each: len(each[0]))[1] if there else None


def homeless(modules: Iterable[str], law: Sequence[Row] = LAW) -> list[str]:
    """The modules that lie in no room."""
    return [module for module in modules if row_of(module, law) is None]


def strays(imports: Iterable[Import], law: Sequence[Row] = LAW) -> list[str]:
    """The imports that go against the law."""
    found = []
    for each in imports:
        row = row_of(each.importer, law)
        if row is not None and not _allowed(each.imported, row, law):
            found.append(str(each))
    return found


def _allowed(imported: str, row: Row, law: Sequence[Row]) -> bool:
    top = imported.partition(".")[0]
    if top == "vdpad":
        place = place_of(imported)
        return row_of(imported, law) == row or any(_within(place, each) for each in row.may_import)
    restricted = any(top in other.knows for other in law)
    free = top in _FREE or (top in sys.stdlib_module_names and not restricted)
    return free or _SECOND_NAMES.get(top, top) in row.knows


def unused(imports: Iterable[Import], law: Sequence[Row] = LAW) -> list[str]:
    """What rows may import of vdpad and no module of theirs does.

    A room that is looked at as a whole counts where a part of it is imported.
    """
    used = {
        (row, name)
        for each in imports
        if (row := row_of(each.importer, law)) is not None
        for name in row.may_import
        if each.imported.partition(".")[0] == "vdpad" and _within(place_of(each.imported), name)
    }
    return [
        f"{', '.join(row.rooms)}: {name}"
        for row in law
        for name in row.may_import
        if (row, name) not in used
    ]


def backward(law: Sequence[Row]) -> list[str]:
    """What rows say that they may import and that does not stand above them."""
    found = []
    for at, row in enumerate(law):
        above = [room for other in law[:at] for room in other.rooms]
        below = [room for other in law[at + 1 :] for room in other.rooms]
        for name in row.may_import:
            if not _any_within(above, name) or _any_within(below, name):
                found.append(f"{', '.join(row.rooms)}: {name}")
    return found


def _any_within(rooms: Iterable[str], room: str) -> bool:
    return any(_within(each, room) for each in rooms)


# --- reading imports ---


def imports_of(
    module: str, path: Path, tree: ast.Module, modules: Collection[str] = PATHS
) -> Iterator[Import]:
    """All imports of a module, wherever in it they stand; also those by a module's name as text.

    Args:
        module: its name.
        path: its file.
        tree: what stands there.
        modules: the names of all that there are, to tell `from room import module` apart.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            yield from _imports_from(module, path, node, modules)
        elif isinstance(node, ast.Constant) and node.value in modules and node.value != "vdpad":
            yield Import(module, node.lineno, str(node.value))
        elif isinstance(node, ast.Call):
            yield from _import_by_call(module, node, modules)


def _import_by_call(module: str, node: ast.Call, modules: Collection[str]) -> Iterator[Import]:
    """Of another package, by its name; or by a name that is put together, which nobody can read."""
    called = ast.unparse(node.func).rpartition(".")[2]
    match node.args:
        case [ast.Constant(str(name)), *_] if called in _IMPORTERS and name not in modules:
            yield Import(module, node.lineno, name)
        case [ast.JoinedStr() | ast.BinOp() as name, *_] if called in _IMPORTERS:
            yield Import(module, node.lineno, ast.unparse(name))


def _imports_from(
    module: str, path: Path, node: ast.ImportFrom, modules: Collection[str]
) -> Iterator[Import]:
    base = node.module or ""
    if node.level:
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join((*parents, base)).rstrip(".")
    for alias in node.names:
        # `from vdpad.queues import control_queue` imports a module, not a name in one.
        below = f"{base}.{alias.name}"
        yield Import(module, node.lineno, below if below in modules else base)


@cache
def imports() -> list[Import]:
    """All of the package."""
    return [each for name, tree in trees().items() for each in imports_of(name, PATHS[name], tree)]
