"""Commands that depend on each other, in the order in which a restore sends them."""

from collections.abc import Iterator, Sequence

from vdpad.conformance.bench import Bench
from vdpad.conformance.case import Case, Level
from vdpad.conformance.cases.expecting import Make, takes
from vdpad.conformance.commands import address_of, clause_of, key_of
from vdpad.conformance.device_under_test import DeviceUp
from vdpad.virtio.commands import (
    ACK_OK,
    CoalTxSet,
    Command,
    MacAddrSet,
    MqPairsSet,
    MqRssConfig,
    RxPromisc,
    VlanAdd,
)
from vdpad.virtio.features import Feature, FeatureSet


def _mac(up: DeviceUp) -> MacAddrSet:
    return MacAddrSet(address_of(up.config))


def _pairs(up: DeviceUp) -> MqPairsSet:
    return MqPairsSet(max(1, up.config.max_virtqueue_pairs))


def _rss(up: DeviceUp) -> MqRssConfig:
    pairs = max(1, up.config.max_virtqueue_pairs)
    return MqRssConfig(up.config.supported_hash_types, 0, (0,), pairs, key_of(up.config))


def _vlan(_: DeviceUp) -> VlanAdd:
    return VlanAdd(7)


def _case(what: str, title: str, command: type[Command], *makes: Make, needs: FeatureSet) -> Case:
    return Case(f"order.{what}", title, clause_of(command), Level.MUST, takes(*makes), needs)


async def _taken_one_behind_the_other(bench: Bench) -> Sequence[str]:
    """Each alone, as a driver sends them that waits for each answer."""
    found = []
    for make in (_mac, _pairs, _rss):
        command = make(bench.up)
        if await bench.ack(command) != ACK_OK:
            found.append(f"{command.NAME}: not acknowledged behind those before it")
    return found


_STEERING: FeatureSet = frozenset({Feature.MQ, Feature.RSS})
_ALL_THREE: FeatureSet = _STEERING | {Feature.CTRL_MAC_ADDR}


def _cases() -> Iterator[Case]:
    yield _case(
        "mac-pairs-rss",
        "the address, queue pairs and RSS are taken in one batch",
        MqRssConfig,
        *(_mac, _pairs, _rss),
        needs=_ALL_THREE,
    )
    yield Case(
        "order.mac-pairs-rss-alone",
        "and one behind the other",
        clause_of(MqRssConfig),
        Level.MUST,
        _taken_one_behind_the_other,
        _ALL_THREE,
    )
    yield _case(
        "pairs-after-rss",
        "queue pairs are taken behind RSS, and RSS once more",
        MqPairsSet,
        *(_rss, _pairs, _rss),
        needs=_STEERING,
    )
    yield _case(
        "mac-vlan-mac",
        "the address may change once there are VLANs",
        MacAddrSet,
        *(_mac, _vlan, lambda _: MacAddrSet(bytes.fromhex("0200000000fe"))),
        needs=frozenset({Feature.CTRL_MAC_ADDR, Feature.CTRL_VLAN}),
    )
    yield _case(
        "rx-twice",
        "a mode that is on may be set on",
        RxPromisc,
        *[lambda _: RxPromisc(on=True)] * 2,
        needs=frozenset({Feature.CTRL_RX}),
    )
    yield _case(
        "coalescing-twice",
        "coalescing may be set again",
        CoalTxSet,
        *(lambda _: CoalTxSet(64, 100), lambda _: CoalTxSet(0, 0)),
        needs=frozenset({Feature.NOTF_COAL}),
    )


CASES: tuple[Case, ...] = tuple(_cases())
