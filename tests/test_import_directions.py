"""Imports go one way: virtio ← state ← restore ← daemon ← cli, as design.md and vdpad/__init__ say.

Every module of the package is parsed, whether or not a test imports it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import vdpad

PACKAGE = Path(vdpad.__file__).parent

# Of vdpad, each room may import only these; whoever is not listed here has no such rule.
MAY_IMPORT = {
    "vdpad.errors": set[str](),
    "vdpad.wire.strict_json": {"vdpad.errors"},
    "vdpad.wire.keys": {"vdpad.errors"},
    "vdpad.wire.sealing": {"vdpad.errors"},
    "vdpad.virtio": {"vdpad.virtio", "vdpad.errors"},
    "vdpad.state": {"vdpad.state", "vdpad.virtio", "vdpad.errors", "vdpad.wire.strict_json"},
    "vdpad.queues": {"vdpad.queues", "vdpad.virtio", "vdpad.errors"},
    "vdpad.restore": {
        "vdpad.restore",
        "vdpad.state",
        "vdpad.virtio",
        "vdpad.errors",
        "vdpad.queues.control_queue",
    },
    "vdpad.host": {"vdpad.host", "vdpad.virtio", "vdpad.errors"},
}
MAY_NOT_IMPORT = {
    "vdpad.daemon": {"vdpad.cli", "vdpad.client"},
    "vdpad.client": {"vdpad.cli", "vdpad.daemon", "vdpad.restore", "vdpad.queues"},
    "vdpad.virtio": {"asyncio", "pydantic", "pydantic_core", "socket"},
}


class Import(NamedTuple):
    """That one module imports another, or something in it."""

    importer: str
    line: int
    imported: str

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: {self.imported}"


def _within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports_of(module: str, path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            yield from _imports_from(module, path, node)


def _imports_from(module: str, path: Path, node: ast.ImportFrom) -> Iterator[Import]:
    base = node.module or ""
    if node.level:
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join((*parents, base)).rstrip(".")
    for alias in node.names:
        # `from vdpad.queues import control_queue` imports a module, not a name in one.
        below = f"{base}.{alias.name}"
        yield Import(module, node.lineno, below if below in MODULES else base)


IMPORTS = [each for name, path in MODULES.items() for each in _imports_of(name, path)]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_those_before_it(room: str) -> None:
    strays = [
        str(each)
        for each in IMPORTS
        if _within(each.importer, room)
        and _within(each.imported, "vdpad")
        and not any(_within(each.imported, allowed) for allowed in MAY_IMPORT[room])
    ]
    assert strays == []


@pytest.mark.parametrize("room", MAY_NOT_IMPORT)
def test_a_room_does_not_import_what_it_must_not_know(room: str) -> None:
    strays = [
        str(each)
        for each in IMPORTS
        if _within(each.importer, room)
        and any(_within(each.imported, forbidden) for forbidden in MAY_NOT_IMPORT[room])
    ]
    assert strays == []


def test_nothing_imports_the_command_line() -> None:
    strays = [
        str(each)
        for each in IMPORTS
        if _within(each.imported, "vdpad.cli") and not _within(each.importer, "vdpad.cli")
    ]
    assert strays == []


def test_only_the_host_s_room_knows_pyroute2() -> None:
    strays = [
        str(each)
        for each in IMPORTS
        if _within(each.imported, "pyroute2") and not _within(each.importer, "vdpad.host")
    ]
    assert strays == []


def test_only_the_metrics_know_prometheus_client() -> None:
    knowing = {each.importer for each in IMPORTS if _within(each.imported, "prometheus_client")}
    assert knowing == {"vdpad.daemon.metrics"}


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("vdpad.state.model", "pydantic"), ("vdpad.restore.replay", "vdpad.queues.control_queue")],
)
def test_the_reader_of_imports_finds_those_that_are_there(importer: str, imported: str) -> None:
    assert any(each.importer == importer and each.imported == imported for each in IMPORTS)


@pytest.mark.parametrize(
    ("line", "imported"),
    [
        ("import vdpad.cli.vdpad as v", "vdpad.cli.vdpad"),
        ("from vdpad.virtio import commands", "vdpad.virtio.commands"),
        ("from vdpad.virtio.commands import VlanAdd", "vdpad.virtio.commands"),
        ("from .plan import plan", "vdpad.restore.plan"),
        ("from . import plan", "vdpad.restore.plan"),
        ("from ..queues import lent_queue", "vdpad.queues.lent_queue"),
        ("def f():\n    import asyncio", "asyncio"),
    ],
)
def test_every_form_of_import_is_read(line: str, imported: str, tmp_path: Path) -> None:
    path = tmp_path / "replay.py"
    path.write_text(line)
    assert [each.imported for each in _imports_of("vdpad.restore.replay", path)] == [imported]
