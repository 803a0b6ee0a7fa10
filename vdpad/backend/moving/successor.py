"""Whether a device can take another's place under a front end that knows only the other.

A front end has read what the first device offers, and has told its guest: it will not ask again. So
the other one must have all of it, also what the guest has not taken: its driver may, after a
reset. What a guest has set is not looked at here; that is tried (rehearsal.py).
"""

from collections.abc import Iterator
from dataclasses import replace

from vdpad.backend.faults import NotRestored
from vdpad.backend.offer import Offer
from vdpad.state.problems import Problem, summary
from vdpad.virtio.features import FEATURES, Feature


def check_successor(before: Offer, after: Offer) -> None:
    """Holds what a device offers against what the one before it did.

    Raises:
        NotRestored: it cannot take its place; with all problems.
    """
    problems = tuple(_problems(before, after))
    if problems:
        raise NotRestored(
            f"the device cannot take the other's place: {summary(problems)}", problems=problems
        )


def with_address_of(before: Offer, after: Offer) -> Offer:
    """What the device offers, with the address by which its guest and the network know the other.

    It is given to the device as a guest's is (Running.put_address_back).
    """
    if Feature.MAC not in before.features:
        return after
    mac = before.net.mac
    return replace(after, config=mac + after.config[len(mac) :])


def _problems(before: Offer, after: Offer) -> Iterator[Problem]:
    lacks = before.features - after.features
    if lacks:
        told = f"the device in use offers {FEATURES.sentence(lacks)}; this one does not"
        yield Problem("features", "missing-feature", told)
    had, has = before.net, after.net
    if has.max_virtqueue_pairs != had.max_virtqueue_pairs:
        # Also where there are more: the control queue's index goes by it.
        told = f"{has.max_virtqueue_pairs} queue pairs; the device in use has "
        yield Problem("max_virtqueue_pairs", "other-value", told + str(had.max_virtqueue_pairs))
    if Feature.MTU in before.features and has.mtu < had.mtu:
        yield Problem("mtu", "out-of-range", f"{has.mtu} bytes; the device in use has {had.mtu}")
    if Feature.RSS in before.features:
        yield from _rss_problems(before, after)
    keeps_address = has.mac == had.mac or Feature.CTRL_MAC_ADDR in after.device
    if Feature.MAC in before.features and not keeps_address:
        told = "the device has another address than the one in use, and takes none"
        yield Problem("mac", "missing-feature", told)


def _rss_problems(before: Offer, after: Offer) -> Iterator[Problem]:
    for name in ("rss_max_key_size", "rss_max_indirection_table_length"):
        had, has = getattr(before.net, name), getattr(after.net, name)
        if has < had:
            yield Problem(name, "out-of-range", f"{has}; the device in use has {had}")
    if before.net.supported_hash_types - after.net.supported_hash_types:
        told = "the device in use hashes over types that this one does not"
        yield Problem("supported_hash_types", "missing-hash-type", told)
