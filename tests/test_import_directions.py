"""Imports go one way, as the table in docs/architecture.md says; support/law.py reads it."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.law import (
    LAW,
    Import,
    Row,
    backward,
    homeless,
    imports,
    imports_of,
    law_of,
    place_of,
    row_of,
    strays,
    unused,
)
from tests.support.package import PACKAGE, PATHS, tree_of

ROOT = Path(__file__).parents[1]

# The exceptions that the page tells of.
EXCEPTIONS = {
    ("vdpad.cli.host_commands", "vdpad.cli.provisioning"),
    ("vdpad.cli.offline_commands", "vdpad.cli.selftest"),
}


def by_name() -> dict[str, tuple[str, str]]:
    """Where they stand."""
    return {
        str(each): (each.importer, each.imported)
        for each in imports()
        if (each.importer, each.imported) in EXCEPTIONS
    }


# --- the package ---


_MEND = "move what is needed there, or change the table in docs/architecture.md, and say why"


def test_every_module_lies_in_a_room() -> None:
    assert homeless(PATHS) == [], f"expected each in a room; {_MEND}"


def test_every_import_is_within_the_law() -> None:
    against = [each for each in strays(imports()) if each not in by_name()]
    assert against == [], f"expected imports within the law; {_MEND}"


def test_what_is_imported_by_name_against_the_law_is() -> None:
    assert set(by_name().values()) == EXCEPTIONS
    assert set(strays(imports())) >= set(by_name())


def test_a_room_is_told_to_import_only_those_before_it() -> None:
    assert backward(LAW) == []


def test_no_room_may_import_what_it_does_not() -> None:
    assert unused(imports()) == []


@pytest.mark.parametrize("room", [room for row in LAW for room in row.rooms])
def test_every_room_is_there(room: str) -> None:
    assert (PACKAGE / room).exists()
    assert (PACKAGE / room).is_dir() == room.endswith("/")


@pytest.mark.parametrize(
    ("row", "name"), [(row, name) for row in LAW for name in row.knows], ids=str
)
def test_who_may_know_of_others_does(row: Row, name: str) -> None:
    assert any(
        each.imported.partition(".")[0] == name and row_of(each.importer) == row
        for each in imports()
    )


def test_the_law_knows_all_that_is_installed_for_vdpad() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=]", each)[0].replace("-", "_") for each in project["dependencies"]}
    named = {each.partition(".")[0] for each in names}
    assert named <= {name for row in LAW for name in row.knows}


# --- that it would be found ---


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("vdpad.virtio.commands", "asyncio"),
        ("vdpad.virtio.commands", "socket"),
        ("vdpad.virtio.commands", "pydantic"),
        ("vdpad.virtio.commands", "pydantic_core"),
        ("vdpad.virtio.commands", "vdpad.state.model"),
        ("vdpad.wire.keys", "cryptography.fernet"),
        ("vdpad.wire.keys", "vdpad.wire.sealing"),
        ("vdpad.state.model", "vdpad.queues.control_queue"),
        ("vdpad.state.model", "vdpad.wire.datagrams"),
        ("vdpad.queues.lent_queue", "vdpad.state.model"),
        ("vdpad.restore.plan", "vdpad.queues.lent_queue"),
        ("vdpad.restore.plan", "vdpad.daemon.settings"),
        ("vdpad.host.vdpa", "vdpad.queues.control_queue"),
        ("vdpad.queues.vhost_vdpa.node", "pyroute2"),
        ("vdpad.service.endpoints.unix", "vdpad.service.envelope"),
        ("vdpad.service.envelope", "asyncio_dgram"),
        ("vdpad.service.envelope", "vdpad.state.model"),
        ("vdpad.client", "vdpad.daemon.settings"),
        ("vdpad.client", "vdpad.restore.report"),
        ("vdpad.daemon.events.devices", "vdpad.daemon.records.file"),
        ("vdpad.daemon.records.file", "vdpad.daemon.devices.keeper"),
        ("vdpad.daemon.devices.keeper", "vdpad.daemon.targets.resolve"),
        ("vdpad.daemon.targets.resolve", "vdpad.daemon.operations.operation"),
        ("vdpad.daemon.operations.operations", "vdpad.daemon.faults"),
        ("vdpad.daemon.operations.operations", "vdpad.daemon.api.api"),
        ("vdpad.daemon.faults", "vdpad.daemon.api.api"),
        ("vdpad.daemon.api.api", "vdpad.daemon.daemon"),
        ("vdpad.daemon.api.api", "prometheus_client"),
        ("vdpad.daemon.daemon", "vdpad.cli.vdpad"),
        ("vdpad.daemon.daemon", "vdpad.client"),
        ("vdpad.cli.commands", "vdpad.daemon.settings"),
        ("vdpad.cli.offline_commands", "vdpad.cli.selftest"),
        ("vdpad.service.events.kinds", "vdpad.service.log"),
        ("vdpad.cli.commands", "a_package_that_no_row_names"),
    ],
)
def test_an_import_against_the_law_is_found(importer: str, imported: str) -> None:
    assert importer in PATHS
    against = Import(importer, 7, imported)
    assert strays([against]) == [f"{importer}, line 7: {imported}"]


@pytest.mark.parametrize("place", ["novel.py", "daemon/novel.py", "novel/part.py"])
def test_a_module_in_no_room_is_found(place: str) -> None:
    module = f"vdpad.{place.removesuffix('.py').replace('/', '.')}"
    assert place_of(module) == place
    assert homeless([module]) == [module]


LITTLE_LAW = """
| room | what it is for | may import | and of others |
|---|---|---|---|
| `low/` | below | | |
| `mid/part.py` | a part of its own | `low/` | `mmap` |
| `mid/` | between | {} | |
| `high.py`, `higher.py` | above | `low/`, `mid/` | |

Below the table.
"""


@pytest.mark.parametrize(
    ("may_import", "found"),
    [
        ("`low/`", []),
        ("`low/`, `mid/part.py`", []),
        ("`high.py`", ["mid/: high.py"]),
        ("`nowhere/`", ["mid/: nowhere/"]),
    ],
)
def test_a_law_that_goes_backward_is_found(may_import: str, found: list[str]) -> None:
    assert backward(law_of(LITTLE_LAW.format(may_import))) == found


@pytest.mark.parametrize(
    ("importer", "line", "stray"),
    [
        ("mid.other", "import vdpad.low.thing", False),
        ("mid.other", "from vdpad.mid.another import name", False),
        ("mid.other", "from vdpad.mid.part import name", True),
        ("mid.other", "import json", False),
        ("mid.other", "import mmap", True),
        ("mid.part", "import mmap", False),
        ("mid.part", "from vdpad.mid.other import name", True),
        ("mid.other", "from vdpad.high import name", True),
        ("low.thing", "def f():\n    from vdpad.mid.part import name", True),
        ("high", "import vdpad.higher", False),
        ("high", "import vdpad.mid.part as part", False),
        ("higher", "from vdpad import nothing", True),
        ("low.thing", "if TYPE_CHECKING:\n    from vdpad.mid.part import name", True),
        ("mid.other", 'import_module("json")', False),
        ("mid.other", 'importlib.import_module("mmap")', True),
        ("mid.other", '__import__("mmap")', True),
        ("mid.other", 'import_module(f"vdpad.{name}")', True),
        ("mid.other", 'import_module("vdpad." + name)', True),
    ],
)
def test_what_stands_in_a_file_is_held_against_the_table(
    importer: str, line: str, stray: bool, tmp_path: Path
) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    found = list(imports_of(f"vdpad.{importer}", path, tree_of(path)))
    assert len(strays(found, law_of(LITTLE_LAW.format("`low/`")))) == stray


# --- how imports are read ---


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("vdpad.state.model", "pydantic"), ("vdpad.restore.replay", "vdpad.queues.control_queue")],
)
def test_the_reader_of_imports_finds_those_that_are_there(importer: str, imported: str) -> None:
    assert any(each.importer == importer and each.imported == imported for each in imports())


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
        ('import_module("vdpad.cli.watch")', "vdpad.cli.watch"),
    ],
)
def test_every_form_of_import_is_read(line: str, imported: str, tmp_path: Path) -> None:
    path = tmp_path / "replay.py"
    path.write_text(line)
    assert [each.imported for each in imports_of("vdpad.restore.replay", path, tree_of(path))] == [
        imported
    ]
