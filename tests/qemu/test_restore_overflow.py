"""MAC tables that are too long for a device: what QEMU does with them, and what is widened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import Options, guestless
from .lender import Json, assert_restored, restore
from .qmp import RxFilter
from .states import multicast_macs, state_of, unicast_macs

TABLE_ROOM = 64


def table(unicast: int = 0, multicast: int = 0, **flags: bool) -> Json:
    """A state's MAC table of so many addresses."""
    return {
        "unicast": list(unicast_macs(unicast)),
        "multicast": list(multicast_macs(multicast)),
        **flags,
    }


async def restored(
    vdpad: Client, parts: Json, commands: int, options: Options | None = None
) -> tuple[RxFilter, RxFilter, list[str]]:
    """Restore on a fresh device; return its filter before and after, and what was widened."""
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, parts))
        assert_restored(report, qemu, commands)
        return before, await qemu.rx_filter(), report["widened"]


@pytest.mark.parametrize("ring_size", [2, 64])
@pytest.mark.parametrize(
    ("unicast", "multicast", "changes"),
    [
        (TABLE_ROOM, 0, {"unicast_table": unicast_macs(64)}),
        (65, 0, {"unicast_overflow": True}),
        (65, 3, {"unicast_overflow": True, "multicast_table": multicast_macs(3)}),
        (3, 65, {"unicast_table": unicast_macs(3), "multicast_overflow": True}),
        (40, 25, {"unicast_table": unicast_macs(40), "multicast_overflow": True}),
        (500, 500, {"unicast_overflow": True, "multicast_overflow": True}),
    ],
)
async def test_the_device_overflows_by_itself(
    vdpad: Client, unicast: int, multicast: int, changes: Json, ring_size: int
) -> None:
    """The device says OK and notes the overflow: a table with all its entries is not widened."""
    parts = {"mac_table": table(unicast, multicast)}
    options = Options(ring_size=ring_size)
    before, after, widened = await restored(vdpad, parts, 1, options)
    assert widened == []
    assert after == replace(before, **changes)


CLOSED: Json = {"rx": {"promisc": False}}


@pytest.mark.parametrize(
    ("flags", "commands", "changes", "modes"),
    [
        ({"unicast_overflow": True}, 3, {"unicast": "all"}, ["alluni"]),
        ({"multicast_overflow": True}, 3, {"multicast": "all"}, ["allmulti"]),
        (
            {"unicast_overflow": True, "multicast_overflow": True},
            4,
            {"unicast": "all", "multicast": "all"},
            ["alluni", "allmulti"],
        ),
    ],
)
async def test_an_overflow_on_the_source_opens_the_filter(
    vdpad: Client, flags: Json, commands: int, changes: Json, modes: list[str]
) -> None:
    parts = {**CLOSED, "mac_table": table(2, 2, **flags)}
    before, after, widened = await restored(vdpad, parts, commands)
    assert after == replace(
        before,
        promiscuous=False,
        unicast_table=unicast_macs(2),
        multicast_table=multicast_macs(2),
        **changes,
    )
    assert [sentence.split(": ")[1] for sentence in widened] == [
        f"{mode} is switched on" for mode in modes
    ]


async def test_without_rx_extra_it_becomes_promiscuous(vdpad: Client) -> None:
    options = Options(without=frozenset({Feature.CTRL_RX_EXTRA}))
    parts = {**CLOSED, "mac_table": table(2, 2, unicast_overflow=True)}
    before, after, widened = await restored(vdpad, parts, 2, options)
    assert after == replace(
        before, promiscuous=True, unicast_table=unicast_macs(2), multicast_table=multicast_macs(2)
    )
    assert ["promisc is switched on" in sentence for sentence in widened] == [True]


async def test_a_state_without_modes_is_widened_too(vdpad: Client) -> None:
    parts = {"mac_table": table(1, 0, multicast_overflow=True)}
    before, after, widened = await restored(vdpad, parts, 2)
    assert after == replace(before, unicast_table=unicast_macs(1), multicast="all")
    assert len(widened) == 1


async def test_what_is_open_already_is_not_widened(vdpad: Client) -> None:
    flags = {"unicast_overflow": True, "multicast_overflow": True}
    modes = {"promisc": False, "alluni": True, "allmulti": True}
    parts = {"rx": modes, "mac_table": table(**flags)}
    before, after, widened = await restored(vdpad, parts, 4)
    assert after == replace(before, promiscuous=False, unicast="all", multicast="all")
    assert widened == []
