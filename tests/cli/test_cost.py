"""What vdpactl spends on files of the worst shapes that are not longer than a state may be."""

import json
import resource
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.commands import OF_STATES, VDPACTL
from tests.support.daemon import ROOT
from tests.support.forker import forker_of
from vdpad.state.formats import command_log
from vdpad.state.formats.native import MAX_SIZE
from vdpad.state.formats.qemu.description import MAX_DESCRIPTION
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.device_parts import MAX_BYTES

# Of all of it, and above what the least of states takes.
_MAX_MIB = 40.0
_MAX_TIMES_THE_CPU = 10

_IMPORTED = (OF_STATES, "vdpad.cli.provisioning", "vdpad.cli.selftest")


class Cost(NamedTuple):
    """What a command spent, and what it said."""

    code: int
    mib: float
    cpu_seconds: float
    said: str


def cost_of(path: Path, *command: str) -> Cost:
    """What it costs to decode a file, or to give it to another command, once that is imported."""
    done = forker_of("tests.cli.cost", *_IMPORTED).text(
        *(command or ("decode",)), path, timeout=100
    )
    assert done.returncode == 0, done
    said, _, cost = done.stderr.rpartition("\n")
    return Cost(**json.loads(cost), said=said + done.stdout)


class Least(NamedTuple):
    """What the least of states costs."""

    imported: Cost
    """To read it."""
    cpu_seconds: float
    """With all that vdpactl imports before."""


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> Least:
    path = tmp_path_factory.mktemp("least") / "state.json"
    path.write_text('{"version": 1, "features": []}')
    before = _cpu_seconds_of_children()
    subprocess.run([*VDPACTL, "decode", path], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    cpu_seconds = _cpu_seconds_of_children() - before
    return Least(cost_of(path), cpu_seconds)


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def is_bounded(cost: Cost, least: Least) -> bool:
    """Whether it is within what readers promise, as far as one machine may tell of another."""
    more = cost.cpu_seconds - least.imported.cpu_seconds
    return (
        cost.mib - least.imported.mib < _MAX_MIB
        and least.cpu_seconds + more < _MAX_TIMES_THE_CPU * least.cpu_seconds
    )


# --- states in JSON ---

Entry = str | Callable[[int], str]
"""The same each time, or by its number."""


def _state(count: int, entry: Callable[[int], str], before: str, behind: str) -> str:
    """A state with so many entries in a part of it, filled up with space."""
    return _state_of(before + ",".join(map(entry, range(count))) + behind)


def _state_of(part: str) -> str:
    return f'{{"version":1,"features":["CTRL_VQ","CTRL_RX"],{part}}}'.ljust(MAX_SIZE)


def _longest(entry: Entry, before: str, behind: str) -> str:
    """The same with as many as there is room for."""
    room = MAX_SIZE - 100 - len(before) - len(behind)
    return _state_of(before + _entries(entry, room) + behind)


def _entries(entry: Entry, room: int) -> str:
    """As many as have no more than so many bytes, with a comma between two."""
    if isinstance(entry, str):
        return ",".join([entry] * (room // (len(entry) + 1)))
    entries: list[str] = []
    while (room := room - len(made := entry(len(entries))) - 1) >= 0:
        entries.append(made)
    return ",".join(entries)


def _address(number: int) -> str:
    """A multicast one."""
    return f'"{((1 << 40) + number).to_bytes(6, "big").hex(":")}"'


_LIST = ('"x":[', "]")
_MACS = ('"mac_table":{"unicast":[', "]}")
_RSS = (
    '"rss":{"hash_types":[],"unclassified_queue":0,"max_tx_queues":1,"key":"aa",'
    '"indirection_table":[',
    "]}",
)
_QUEUES = ('"coalescing":{"queues":{', "}}")

STATES = {
    # As much as there is room for, which is mostly more than is read at all.
    "numbers": lambda: _longest("1", *_LIST),
    "lists": lambda: _longest("[]", *_LIST),
    "objects": lambda: _longest('{"a":0}', *_LIST),
    "deep": lambda: '{"x":' + "[" * (MAX_SIZE - 10),
    "deep lists": lambda: _longest("[" * 900 + "]" * 900, *_LIST),
    "names": lambda: _longest('"{:x}":0'.format, "", ""),
    "names in a part": lambda: _longest('"{:x}":0'.format, '"rss":{', "}"),
    "no addresses": lambda: _longest("1", *_MACS),
    "one address": lambda: _longest('"52:54:00:12:34:56"', *_MACS),
    "no queue numbers": lambda: _longest('""', *_RSS),
    "no coalescing": lambda: _longest('"{}":{{}}'.format, *_QUEUES),
    "ranges": lambda: _longest("[1,2]", '"vlans":[', "]"),
    "names of features": lambda: _longest('"bit_{:020}"'.format, '"guest_offloads":[', "]"),
    "one string": lambda: _longest('"' + "\u20ac" * 1_300_000 + '"', *_LIST),
    # As much as is read.
    "strings, fewer": lambda: _state(139_000, '"{:026}"'.format, *_LIST),
    "numbers, fewer": lambda: _state(139_000, "1{:020}".format, *_LIST),
    "lists, fewer": lambda: _state(16_300, '["{0:030}","{0:032}","{0:034}"]'.format, *_LIST),
    "names, fewer": lambda: _state(4_000, '"{:0100}":0'.format, "", ""),
    "addresses, fewer": lambda: _state(139_000, _address, *_MACS),
    "no coalescing, fewer": lambda: _state(16_300, '"{}":{{}}'.format, *_QUEUES),
    "names in a queue": lambda: _state(
        4_000, '"{:0100}":0'.format, '"coalescing":{"queues":{"0":{', "}}}"
    ),
}


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_a_state_as_long_as_may_be(tmp_path: Path, least: Least, make: Callable[[], str]) -> None:
    (tmp_path / "state.json").write_text(make())
    cost = cost_of(tmp_path / "state.json")
    assert (cost.code, "expected" in cost.said or "problem" in cost.said) == (2, True), cost
    assert is_bounded(cost, least), (cost, least)


# --- QEMU's streams ---


def _device(number: int, text: str, length: int) -> str:
    head = f'{{"name": "d{number}", "instance_id": 0, '
    return f"{head}{text}}}".ljust(length)


def _described(devices: int, filled: Callable[[int], str]) -> str:
    """So many devices, filled with what has about so many bytes."""
    length = (MAX_DESCRIPTION - 100) // devices - 1
    made = (_device(number, filled(length - 60), length) for number in range(devices))
    return f'{{"devices": [{",".join(made)}]}}'


def _all_of(entry: Entry, before: str, behind: str) -> Callable[[int], str]:
    """What has about so many bytes of entries."""

    def filled(length: int) -> str:
        return before + _entries(entry, length - len(before) - len(behind)) + behind

    return filled


_FIELDS = ('"fields": [', "]")

DESCRIPTIONS = {
    "numbers": lambda: _described(8, _all_of("0", *_LIST)),
    "lists": lambda: _described(8, _all_of("[]", *_LIST)),
    "objects": lambda: _described(8, _all_of("{}", *_LIST)),
    "fields": lambda: _described(8, _all_of('{"size":1}', *_FIELDS)),
    "names": lambda: _described(8, _all_of('"{:x}":0'.format, '"x":{', "}")),
    "devices": lambda: _described(MAX_DESCRIPTION // 60, lambda _: '"size": 0'),
    "one device": lambda: _described(1, _all_of("{}", *_LIST)),
    "no device": lambda: '{"devices":[' + ",".join(["{}"] * (MAX_DESCRIPTION // 3 - 10)) + "]}",
    # As much as is read.
    "lists, fewer": lambda: _described(8, _all_of("[]".ljust(34), *_LIST)),
    "objects, fewer": lambda: _described(8, _all_of("{}".ljust(34), *_LIST)),
    "names, fewer": lambda: _described(8, _all_of('"{:011}":0'.format, '"x":{', "}")),
    "strings, fewer": lambda: _described(8, _all_of('"{:06}"'.format, *_LIST)),
    "devices, fewer": lambda: _described(8000, lambda _: '"size": 0'),
}


@pytest.mark.parametrize("make", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_as_long_as_may_be(
    tmp_path: Path, least: Least, make: Callable[[], str]
) -> None:
    text = make().encode()
    assert MAX_DESCRIPTION * 0.9 < len(text) <= MAX_DESCRIPTION
    # One device's section, for whose length the description is read.
    section = b"\x04" + struct.pack(">I", 1) + b"\x01d" + struct.pack(">II", 0, 1)
    stream = b"QEVM" + struct.pack(">I", 3) + section + b"\0\6" + struct.pack(">I", len(text))
    (tmp_path / "stream").write_bytes(stream + text)
    cost = cost_of(tmp_path / "stream")
    assert (cost.code, "expected" in cost.said) == (2, True), cost
    assert is_bounded(cost, least), (cost, least)


# --- lists of devices, results of selftests ---

_FEATURES = ('[{"features":[', '],"config":null}]')
_LISTED = {
    "numbers": lambda: _whole("1", "[", "]"),
    "lists": lambda: _whole("[]", "[", "]"),
    "objects": lambda: _whole("{}", "[", "]"),
    "devices": lambda: _whole('{"features":[],"config":{}}', "[", "]"),
    "features": lambda: _whole("1", *_FEATURES),
    "names": lambda: _whole('"{:x}":0'.format, "[{", "}]"),
    # As much as is read.
    "numbers, fewer": lambda: f"[{','.join(['1'] * 16_000)}]",
    "objects, fewer": lambda: f"[{','.join(['{}'] * 2_000)}]",
    "names, fewer": lambda: "[{" + ",".join(map('"{:0100}":0'.format, range(8_000))) + "}]",
}


def _whole(entry: Entry, before: str, behind: str) -> str:
    return _all_of(entry, before, behind)(MAX_SIZE - 100)


@pytest.mark.parametrize("make", _LISTED.values(), ids=_LISTED)
def test_a_list_of_devices_as_long_as_may_be(
    tmp_path: Path, least: Least, make: Callable[[], str]
) -> None:
    (tmp_path / "devices.json").write_text(make())
    cost = cost_of(tmp_path / "devices.json", "provision", "--mgmtdev=none", "--like")
    assert (cost.code, "no list of devices" in cost.said) == (2, True), cost
    assert is_bounded(cost, least), (cost, least)


@pytest.mark.parametrize("make", _LISTED.values(), ids=_LISTED)
def test_a_result_as_long_as_may_be(tmp_path: Path, least: Least, make: Callable[[], str]) -> None:
    (tmp_path / "result.json").write_text(f'{{"cases":{make()}}}'.ljust(MAX_SIZE)[:MAX_SIZE])
    cost = cost_of(tmp_path / "result.json", "selftest", "vdpa0", "--compare")
    assert (cost.code, "vdpactl selftest --json" in cost.said) == (2, True), cost
    assert is_bounded(cost, least), (cost, least)


# --- device parts ---


@pytest.mark.parametrize("kind", [0x110, 0x105])
def test_device_parts_as_many_as_may_be(tmp_path: Path, least: Least, kind: int) -> None:
    empty = (
        struct.pack("<HBBHxxxxxxI", kind, 0, 0, at & 0xFFFF, 0) for at in range(MAX_BYTES // 16)
    )
    (tmp_path / "parts").write_bytes(b"".join(empty))
    cost = cost_of(tmp_path / "parts")
    assert (cost.code, "expected" in cost.said) == (2, True), cost
    assert is_bounded(cost, least), (cost, least)


# --- command logs ---

_LOGGED = {
    "nothing": command_log.push_command(b"", 0),
    "resets": command_log.push_reset(range(128)),
    "VLANs": command_log.push_command(VlanAdd(7).encode(), 0),
}


@pytest.mark.parametrize("record", _LOGGED.values(), ids=_LOGGED)
def test_a_command_log_as_long_as_may_be(tmp_path: Path, least: Least, record: bytes) -> None:
    header = command_log.push_header(range(128))
    count = (command_log.MAX_SIZE - len(header)) // len(record)
    (tmp_path / "log").write_bytes(header + count * record)
    cost = cost_of(tmp_path / "log")
    assert (cost.code, "acknowledged" in cost.said) == (0, True), cost
    assert is_bounded(cost, least), (cost, least)
