"""What went wrong in QEMU's restore of CVQ state, each where it could go wrong here.

From QEMU's history and its open issues: see the names of the tests. Not here, since vdpad never
does it: negotiating features, enabling data queues, and loading a migration stream.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.batches import MAC, vlans
from tests.support.devices import config, running, send
from tests.support.marks import with_and_without_event_idx
from tests.support.states import KEY_HEX, bare_state
from tests.support.stepped import Step, SteppedDevice, stepped
from vdpad.queues.software.misbehaviour import Fault
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Plan, plan
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.commands import (
    Command,
    MacAddrSet,
    MacTableSet,
    MqRssConfig,
    RxPromisc,
    VlanAdd,
    decode_command,
)
from vdpad.virtio.config import HashType, TunnelType, cvq_index
from vdpad.virtio.features import FEATURES, Feature


def _complete_one(device: SteppedDevice) -> None:
    for chain in device.take()[:1]:
        device.complete(chain)


async def _replay(
    device: SteppedDevice, commands: tuple[Command, ...], step: Step = _complete_one
) -> Replayed:
    program = encode(commands, device.geometry, event_idx=device.event_idx)
    with stepped(device, step) as queue:
        deadline = asyncio.get_running_loop().time() + 60.0
        return await replay(program, queue, deadline=deadline, poll_ns=0)


def _commands(features: Iterable[str], **parts: Any) -> tuple[Command, ...]:
    """What is planned for a state on a device that has these features."""
    device = Capabilities(
        features=frozenset(map(FEATURES.bit, features)),
        largest_command=1 << 20,
        max_queue_pairs=8,
        rss_max_key_size=40,
        rss_max_indirection_table_length=65535,
        supported_hash_types=frozenset(HashType),
        supported_tunnel_types=frozenset(TunnelType),
    )
    made = plan(bare_state(features, **parts), device)
    assert isinstance(made, Plan), made
    return made.commands


async def _settings(features: Iterable[str], **parts: Any) -> dict[str, Any]:
    """What the software device holds after the restore of a state."""
    async with running(config()) as device:
        sent = await send(device, _commands(features, **parts))
        assert sent.replayed.outcome is Outcome.RESTORED
        return device.net.settings()


# --- fixed there ---


@with_and_without_event_idx
async def test_free_slots_are_descriptors_and_a_full_ring_overwrites_no_live_one(
    event_idx: bool,
) -> None:
    most = 0

    def step(device: SteppedDevice) -> None:
        nonlocal most
        most = max(most, len(device.take()))
        _complete_one(device)  # which asserts that no chain in flight has changed

    device = SteppedDevice(8, event_idx=event_idx, start_index=65532)
    replayed = await _replay(device, vlans(50), step)
    assert replayed.outcome is Outcome.RESTORED
    assert most == 4


async def test_a_refused_command_is_no_success() -> None:
    async with running(config(faults={2: Fault.ERR})) as device:
        sent = await send(device, vlans(4))
    assert sent.replayed.outcome is Outcome.REJECTED
    assert sent.replayed.rejected == (2,)


@pytest.mark.parametrize("head", [8, 0xFFFF, 0x10000, 0xFFFFFFFF])
async def test_an_invalid_used_id_is_told_and_its_length_means_nothing(head: int) -> None:
    def step(device: SteppedDevice) -> None:
        device.take()
        device.put(head, 0xDEADBEEF)

    replayed = await _replay(SteppedDevice(8, event_idx=False), vlans(1), step)
    assert replayed.outcome is Outcome.BROKEN
    assert replayed.fault == f"it returned descriptor {head}, which is not in flight"


@with_and_without_event_idx
async def test_a_buffer_may_end_exactly_where_the_mapping_ends(event_idx: bool) -> None:
    command = MacTableSet(tuple(bytes([2, 0, 0, 0, 0, n]) for n in range(9)), ())
    ends: list[int] = []

    def step(device: SteppedDevice) -> None:
        ends.extend(chain.readable_at + len(chain.readable) for chain in device.take())
        _complete_one(device)

    size = 1 + len(command.encode())
    device = SteppedDevice(64, event_idx=event_idx, buffers=size)
    whole = device.geometry.memory.size
    replayed = await _replay(device, (command,), step)
    assert replayed.outcome is Outcome.RESTORED
    assert ends == [whole]


@with_and_without_event_idx
async def test_a_mac_table_larger_than_a_page_is_not_truncated(event_idx: bool) -> None:
    command = MacTableSet(tuple((n << 1).to_bytes(6, "little") for n in range(2000)), ())
    device = SteppedDevice(64, event_idx=event_idx, buffers=32768)
    replayed = await _replay(device, (MacAddrSet(MAC), command, *vlans(3)))
    assert replayed.outcome is Outcome.RESTORED
    assert device.served[1] == command.encode()
    assert len(device.served[1]) == 2 + 4 + 12000 + 4


def test_an_indirection_table_of_65536_entries_has_a_mask_of_65535() -> None:
    (command,) = _commands_of_longest_table()
    wire = command.encode()
    assert wire[6:8] == b"\xff\xff"
    assert len(wire) == 2 + 8 + 2 * 65536 + 3 + 1
    assert decode_command(wire) == command


def _commands_of_longest_table() -> tuple[Command, ...]:
    table = tuple(n % 8 for n in range(65536))
    return (MqRssConfig(frozenset({HashType.IPv4}), 0, table, 8, b"\x01"),)


@with_and_without_event_idx
async def test_the_longest_indirection_table_is_replayed(event_idx: bool) -> None:
    commands = _commands_of_longest_table()
    device = SteppedDevice(64, event_idx=event_idx, buffers=1 << 18)
    replayed = await _replay(device, commands)
    assert replayed.outcome is Outcome.RESTORED
    assert device.served == [commands[0].encode()]


def test_rss_alone_places_the_control_queue_behind_all_pairs() -> None:
    assert Feature.RSS >= 32
    assert cvq_index(frozenset({Feature.CTRL_VQ, Feature.RSS}), 4) == 8


# --- open there, as read ---


@pytest.mark.parametrize(
    ("feature", "part", "value"),
    [
        (
            "RSS",
            "rss",
            {
                "hash_types": ["IPv4"],
                "indirection_table": [0, 1],
                "unclassified_queue": 1,
                "max_tx_queues": 2,
                "key": KEY_HEX,
            },
        ),
        ("HASH_REPORT", "hash_report", {"hash_types": ["TCPv6"], "key": KEY_HEX}),
    ],
)
async def test_hashing_is_restored_without_mq(
    feature: str, part: str, value: dict[str, Any]
) -> None:
    settings = await _settings(["CTRL_VQ", feature], **{part: value})
    assert settings[part] == value


async def test_rss_without_hash_types_is_restored_and_stays_on() -> None:
    rss = {
        "hash_types": [],
        "indirection_table": [0, 1],
        "unclassified_queue": 1,
        "max_tx_queues": 2,
        "key": KEY_HEX,
    }
    settings = await _settings(["CTRL_VQ", "MQ", "RSS"], queue_pairs=2, rss=rss)
    assert settings["rss"] == rss


@pytest.mark.parametrize("length", [1, 16, 39, 40])
async def test_a_key_is_sent_at_its_own_length(length: int) -> None:
    report = {"hash_types": ["IPv4"], "key": KEY_HEX[: 2 * length]}
    (command,) = _commands(["CTRL_VQ", "HASH_REPORT"], hash_report=report)
    assert command.encode()[14] == length
    settings = await _settings(["CTRL_VQ", "HASH_REPORT"], hash_report=report)
    assert settings["hash_report"] == report


async def test_vlan_ids_are_little_endian_on_the_wire() -> None:
    device = SteppedDevice(8, event_idx=False)
    await _replay(device, (VlanAdd(0x0123), VlanAdd(1)))
    assert device.served == [b"\x02\x00\x23\x01", b"\x02\x00\x01\x00"]


@with_and_without_event_idx
async def test_each_ack_is_filled_beforehand_also_where_a_buffer_is_used_again(
    event_idx: bool,
) -> None:
    # That an ack is 0xff when its chain is taken the device asserts.
    replayed = await _replay(SteppedDevice(4, event_idx=event_idx), vlans(20))
    assert replayed.outcome is Outcome.RESTORED


@with_and_without_event_idx
@pytest.mark.parametrize("at", [0, 7])
async def test_an_ack_that_was_never_written_is_no_success(at: int, event_idx: bool) -> None:
    async with running(config(event_idx=event_idx, faults={at: Fault.STALE_ACK})) as device:
        sent = await send(device, vlans(8))
    assert sent.replayed.outcome is Outcome.BROKEN
    assert sent.replayed.fault == "an ack is 0xff, neither OK nor ERR"
    assert at in sent.replayed.unanswered


@with_and_without_event_idx
async def test_each_used_length_is_looked_at_and_not_only_their_sum(event_idx: bool) -> None:
    def step(device: SteppedDevice) -> None:
        first, second = device.take()
        device.complete(first, length=0)
        device.complete(second, length=2)

    replayed = await _replay(SteppedDevice(8, event_idx=event_idx), vlans(2), step)
    assert replayed.outcome is Outcome.RESTORED
    assert replayed.wrong_lengths == ((0, 1), (2, 1))


@pytest.mark.parametrize("on", [False, True])
async def test_promiscuous_mode_is_told_whichever_way_a_device_may_default(on: bool) -> None:
    assert _commands(["CTRL_VQ", "CTRL_RX"], rx={"promisc": on}) == (RxPromisc(on),)
    settings = await _settings(["CTRL_VQ", "CTRL_RX"], rx={"promisc": on})
    assert settings["rx"]["promisc"] is on


async def test_a_mac_table_past_64_entries_is_sent_whole_and_overflows_with_a_flag() -> None:
    table = {"unicast": [f"52:54:00:00:00:{n:02x}" for n in range(65)]}
    (command,) = _commands(["CTRL_VQ", "CTRL_RX"], mac_table=table)
    assert isinstance(command, MacTableSet)
    assert len(command.unicast) == 65
    settings = await _settings(["CTRL_VQ", "CTRL_RX"], mac_table=table)
    assert settings["mac_table"]["unicast_overflow"] is True


async def test_a_mac_table_that_overflowed_on_the_source_does_not_shut_its_addresses_out() -> None:
    features = ["CTRL_VQ", "CTRL_RX", "CTRL_RX_EXTRA"]
    settings = await _settings(
        features,
        rx={"promisc": False},
        mac_table={"unicast_overflow": True, "multicast_overflow": True},
    )
    assert (settings["rx"]["alluni"], settings["rx"]["allmulti"]) == (True, True)


async def test_receive_segment_coalescing_is_restored() -> None:
    features = ["CTRL_VQ", "CTRL_GUEST_OFFLOADS", "GUEST_CSUM", "RSC_EXT"]
    settings = await _settings(features, guest_offloads=["RSC_EXT"])
    assert settings["guest_offloads"] == ["RSC_EXT"]


async def test_interrupt_coalescing_is_restored() -> None:
    coalescing = {
        "tx": {"max_packets": 64, "max_usecs": 100},
        "rx": {"max_packets": 32, "max_usecs": 50},
        "queues": {"0": {"max_packets": 16, "max_usecs": 25}},
    }
    settings = await _settings(["CTRL_VQ", "NOTF_COAL", "VQ_NOTF_COAL"], coalescing=coalescing)
    assert settings["coalescing"] == coalescing


@pytest.mark.parametrize("strange", [7, None], ids=["strange", "stale"])
async def test_after_an_error_in_mid_batch_the_device_s_buffers_are_left_to_it(
    strange: int | None,
) -> None:
    taken: list[bytes] = []

    def step(device: SteppedDevice) -> None:
        chains = device.take()
        for chain in chains[:2]:  # the first bank whole; the second stays in flight
            device.complete(chain, ack=strange)
        taken.append(device.memory[:])

    device = SteppedDevice(8, event_idx=True)
    program = encode(vlans(20), device.geometry, event_idx=True)
    with stepped(device, step) as queue:
        replayed = await replay(program, queue, deadline=60.0, poll_ns=0)
        assert replayed.outcome is Outcome.BROKEN
        assert len(device.in_flight) == 2
        assert device.take() == list(device.in_flight.values())  # nothing new, nothing changed
        buffers = device.geometry.buffers.iova - device.geometry.memory.iova
        assert device.memory[buffers:] == taken[0][buffers:]
        assert device.words.available_index == 4


@with_and_without_event_idx
async def test_after_a_refusal_in_mid_batch_buffers_in_flight_are_left_alone(
    event_idx: bool,
) -> None:
    def step(device: SteppedDevice) -> None:
        for chain in device.take()[:1]:  # which asserts that no chain in flight has changed
            device.complete(chain, ack=len(device.served) % 3 == 0)

    replayed = await _replay(SteppedDevice(8, event_idx=event_idx), vlans(30), step)
    assert replayed.outcome is Outcome.REJECTED
    assert replayed.rejected == tuple(range(0, 30, 3))
