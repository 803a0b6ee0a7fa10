"""From one QEMU's migration stream through the daemon onto another's device, and back in a stream.

A guest's commands set the first device up; its stream is decoded, the state restored on a fresh
device over a lent ring, and that one's stream decoded. Both streams are read by the walker of the
tests too, so that what vdpad's reader might overlook in both is noticed.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from vdpad.client import Client
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Plan, plan
from vdpad.state.formats.qemu import read_stream
from vdpad.state.found import Found
from vdpad.state.model import NetState
from vdpad.virtio.config import HashType
from vdpad.virtio.features import Feature

from .driver import driven
from .guestless import Options, guestless
from .lender import Json, assert_restored, lent_target, restore
from .states import (
    PARTS,
    TOGETHER,
    Sample,
    guest_offloads,
    multicast_macs,
    rx,
    state_of,
    unicast_macs,
)
from .stream import read_net_settings
from .versions import BOOKWORM, TRIXIE_BACKPORTS

MACHINES = {
    "pc-intx": Options(),
    "q35-msix": Options(machine="q35", vectors=10),
    "root-port-msix": Options(machine="q35", root_port=True, vectors=3),
}


async def set_up_and_stream(sample: Sample, options: Options) -> bytes:
    """A stream of a device whose guest has sent what makes this sample."""
    async with driven(options) as (qemu, driver):
        state = NetState.model_validate_json(json.dumps(state_of(qemu, sample.parts)))
        for command in commands_of(state):
            assert await driver.send(command) == 0, command.hex()
        return await qemu.stream()


def commands_of(state: NetState) -> list[bytes]:
    """What a guest sends, a device of any size before it."""
    anything = Capabilities(state.features, 1 << 20, 1 << 15, 255, 1 << 15, frozenset(HashType))
    planned = plan(state, anything)
    assert isinstance(planned, Plan), planned
    return [command.encode() for command in planned.commands]


def decoded(stream: bytes) -> Found:
    """The stream's only device."""
    (device,) = read_stream(io.BytesIO(stream)).devices
    assert device.state is not None, device.problems
    return device


def as_json(found: Found) -> Json:
    """The state as it goes over the socket."""
    assert found.state is not None
    made: Json = json.loads(found.state.model_dump_json(exclude_none=True))
    return made


async def restored_and_streamed(vdpad: Client, state: Json, options: Options) -> bytes:
    """A stream of a fresh device on which the daemon has restored a state."""
    async with guestless(options) as qemu:
        check = await vdpad.check(state, lent_target(qemu))
        assert check["compatible"], check["problems"]
        assert_restored(await restore(vdpad, qemu, state), qemu)
        return await qemu.stream()


async def round_trip(vdpad: Client, sample: Sample, options: Options) -> Found:
    """Both states must be the same; returns the first."""
    options = replace(options, device_properties=sample.properties)
    first = await set_up_and_stream(sample, options)
    found = decoded(first)
    second = await restored_and_streamed(vdpad, as_json(found), options)
    assert decoded(second) == found
    assert read_net_settings(second) == read_net_settings(first)
    return found


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("sample", TOGETHER.values(), ids=TOGETHER)
async def test_every_version_and_machine(
    vdpad: Client, program: str, sample: Sample, machine: Options
) -> None:
    found = await round_trip(vdpad, sample, replace(machine, qemu=program))
    assert found.state is not None
    set_by_guest = {**as_json(found), **sample.parts}
    assert found.state == NetState.model_validate_json(json.dumps(set_by_guest))
    assert found.notes == ()
    assert found.missing == ()


@pytest.mark.parametrize("program", [BOOKWORM, TRIXIE_BACKPORTS], indirect=True, ids=str)
@pytest.mark.parametrize("sample", PARTS.values(), ids=PARTS)
async def test_a_part_alone(vdpad: Client, program: str, sample: Sample) -> None:
    await round_trip(vdpad, sample, Options(qemu=program))


async def test_a_single_queue_pair(vdpad: Client, program: str) -> None:
    """QEMU leaves the queue pairs out of its stream then."""
    sample = rx(promisc=False, allmulti=True) | guest_offloads(1 << 1, "GUEST_CSUM")
    found = await round_trip(vdpad, sample, Options(qemu=program, queue_pairs=1))
    assert found.state is not None
    assert found.state.queue_pairs is None


async def test_a_guest_that_negotiated_next_to_nothing(vdpad: Client, program: str) -> None:
    bare = frozenset({Feature.VERSION_1, Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR})
    options = Options(qemu=program, negotiate=frozenset(map(int, bare)))
    found = await round_trip(vdpad, PARTS["mac"], options)
    assert found.state == NetState(version=1, features=bare, mac=bytes.fromhex("525400aabbcc"))


@pytest.mark.parametrize("program", [TRIXIE_BACKPORTS], indirect=True, ids=str)
async def test_from_an_old_qemu_to_a_new_one(vdpad: Client, program: str) -> None:
    sample = TOGETHER["with-rss"]
    old = Options(qemu=BOOKWORM.program, device_properties=sample.properties)
    first = await set_up_and_stream(sample, old)
    found = decoded(first)
    assert found.state is not None
    new = replace(old, qemu=program, machine="q35", vectors=4, negotiate=found.state.features)
    second = await restored_and_streamed(vdpad, as_json(found), new)
    assert decoded(second).state == found.state
    assert read_net_settings(second) == read_net_settings(first)


@pytest.mark.parametrize(
    ("unicast", "multicast", "opened"),
    [(65, 3, "alluni"), (3, 65, "allmulti"), (40, 40, "allmulti")],
)
async def test_a_table_that_overflowed_is_restored_wider(
    vdpad: Client, program: str, unicast: int, multicast: int, opened: str
) -> None:
    """QEMU keeps no more than 64 addresses; of a half that did not fit it keeps the flag."""
    parts: Json = {
        "rx": {"promisc": False},
        "mac_table": {
            "unicast": list(unicast_macs(unicast)),
            "multicast": list(multicast_macs(multicast)),
        },
    }
    options = Options(qemu=program)
    found = decoded(await set_up_and_stream(Sample(parts), options))
    assert found.state is not None
    assert found.state.rx is not None
    assert not getattr(found.state.rx, opened)
    second = decoded(await restored_and_streamed(vdpad, as_json(found), options))
    assert second.state is not None
    assert second.state.rx == found.state.rx.model_copy(update={opened: True})
