# The lender is this process: it owns QEMU's device and lends its control queue to the daemon. Here
# the harness and vdpad's API meet; the harness itself knows nothing of vdpad.
"""The lender's side of vdpad's API: a guest-less QEMU as a `lent` target, and its report."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from vdpad.client import Client, Refused
from vdpad.virtio.config import HASH_TYPES
from vdpad.virtio.features import FEATURES

from .device import bits
from .driver import indices
from .guestless import Guestless, Lend

Json = dict[str, Any]

_numbers = itertools.count(1)


def migration() -> str:
    """Return a name that no migration had before."""
    return f"tests/qemu/{next(_numbers)}"


def feature_names(qemu: Guestless) -> list[str]:
    """Return the names of the features that were negotiated with the device."""
    return FEATURES.names(qemu.features)


def lent_target(
    qemu: Guestless,
    *,
    claimed: Iterable[str] = (),
    config: Mapping[str, Any] | None = None,
    ring: Mapping[str, Any] | None = None,
) -> Json:
    """Return the target: the truth, but for what a lying lender adds or replaces.

    `claimed` are names of features beside the negotiated ones; `config` and `ring` replace keys.
    """
    return {
        "kind": "lent",
        "features": [*feature_names(qemu), *claimed],
        "config": {
            "max_virtqueue_pairs": qemu.config.max_virtqueue_pairs,
            "rss_max_key_size": qemu.config.rss_max_key_size,
            "rss_max_indirection_table_length": qemu.config.rss_max_indirection_table_length,
            "supported_hash_types": HASH_TYPES.names(bits(qemu.config.supported_hash_types)),
            **(config or {}),
        },
        "ring": {**_ring(qemu.lend), **(ring or {})},
    }


def _ring(lend: Lend) -> Json:
    areas: Json = {"available": lend.available, "used": lend.used}
    if lend.packed:
        areas = {"layout": "packed", "driver": lend.available, "device": lend.used}
    return {
        "size": lend.ring_size,
        "memory": {"iova": lend.memory_iova, "size": lend.memory_size},
        "descriptors": lend.descriptors,
        **areas,
        "buffers": {"iova": lend.buffers_iova, "size": lend.buffers_size},
    }


def descriptors(lend: Lend) -> tuple[int, int, int]:
    """Return what rides on the request, in its order."""
    return lend.memory_fd, lend.kick_fd, lend.call_fd


async def restore(
    vdpad: Client,
    qemu: Guestless,
    state: Json,
    target: Json | None = None,
    *,
    name: str | None = None,
    fds: tuple[int, ...] | None = None,
    deadline_ms: int | None = None,
) -> Json:
    """Have a state restored; by default as a new migration, on a target that is honestly lent."""
    return await vdpad.restore(
        name or migration(),
        state,
        target or lent_target(qemu),
        fds=descriptors(qemu.lend) if fds is None else fds,
        deadline_ms=deadline_ms,
    )


async def refused(
    vdpad: Client,
    qemu: Guestless,
    state: Json,
    target: Json | None = None,
    *,
    name: str | None = None,
    fds: tuple[int, ...] | None = None,
    deadline_ms: int | None = None,
) -> Refused:
    """The same where an error must come of it."""
    with pytest.raises(Refused) as caught:
        await restore(vdpad, qemu, state, target, name=name, fds=fds, deadline_ms=deadline_ms)
    return caught.value


def assert_restored(report: Json, qemu: Guestless, commands: int | None = None) -> None:
    """Everything was applied, and what the report says of the ring is what the lender sees."""
    assert report["outcome"] == "restored"
    assert report["applied"] == report["commands"] == (commands or report["commands"]) > 0
    assert (report["rejected"], report["unanswered"]) == ([], [])
    assert (report["rejected_total"], report["unanswered_total"]) == (0, 0)
    assert_handed_back(report, qemu)


def assert_handed_back(report: Json, qemu: Guestless) -> None:
    """The lender has its ring again, idle, where the report says that it stands."""
    assert report["doorbells"] == qemu.kicks
    assert not report["device_must_reset"]
    end = (qemu.lend.start_index + report["commands"]) & 0xFFFF
    assert report["ring"] == {"next_available": end, "next_used": end}
    assert indices(qemu.lend) == (end, end)
