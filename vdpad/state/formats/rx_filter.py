"""A running QEMU's virtio-net device, as QMP's query-rx-filter shows its receive filter.

QEMU tells no features there, so they come from elsewhere (qemu_features.py), and they say what of
the answer the guest can have set: a device without CTRL_RX is promiscuous by itself, and that is no
part of its state. What QEMU does not tell at all is missing, wherever the features let a guest set
it; a migration stream has it.

Source: seen on QEMU 7.2 and 10.0 (qapi/net.json, RxFilterInfo). `broadcast-allowed` shows the
device's nobcast, the opposite of its name. Tables come in reverse. A closing mode hides the opening
one: with nouni, `unicast` is none whatever alluni is.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vdpad.state.fields import MacAddress
from vdpad.state.found import FormatError, Found, Missing, found_of
from vdpad.state.mac_lists import MacLists, mac_lists
from vdpad.state.problems import problems_of, summary
from vdpad.virtio.features import Feature, FeatureSet, commanded

__all__ = ["RxFilter", "found_in", "rx_filters"]

_EVERY_VLAN = 4096
_UNTOLD = "QMP does not tell it; a migration stream does"
_NEVER_TOLD = "QEMU tells it nowhere"

Reach = Literal["normal", "none", "all"]


class RxFilter(BaseModel):
    """One element of the answer, with its inversion put right; unknown keys are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    name: str
    """The device's id, or its type and a number where it has none: "virtio-net-pci.0"."""
    promiscuous: bool
    main_mac: MacAddress = Field(alias="main-mac")
    unicast: Reach
    """none with nouni, else all with alluni."""
    multicast: Reach
    vlan: Reach
    """all without CTRL_VLAN, none where the table is empty."""
    nobcast: bool = Field(alias="broadcast-allowed")
    unicast_overflow: bool = Field(alias="unicast-overflow")
    multicast_overflow: bool = Field(alias="multicast-overflow")
    # The first problem alone: one that is all wrong would have as many as entries.
    unicast_table: list[MacAddress] = Field(alias="unicast-table", fail_fast=True)
    multicast_table: list[MacAddress] = Field(alias="multicast-table", fail_fast=True)
    vlan_table: list[int] = Field(alias="vlan-table", fail_fast=True)


def rx_filters(answer: object) -> list[RxFilter]:
    """query-rx-filter's answer: the network cards that have a receive filter.

    Raises:
        FormatError: it is no such answer.
    """
    if not isinstance(answer, list):
        raise FormatError(f"query-rx-filter: expected a list, got {type(answer).__name__}")
    try:
        return [RxFilter.model_validate(each) for each in answer]
    except ValidationError as error:
        raise FormatError(f"query-rx-filter: {summary(problems_of(error))}") from error


def found_in(shown: RxFilter, features: FeatureSet) -> Found:
    """The device's state as far as QEMU shows it.

    Args:
        shown: what QEMU shows.
        features: what the guest's driver negotiated.

    Raises:
        FormatError: QEMU says that other features were negotiated.
    """
    _check_vlan(shown, features)
    settable = commanded(features)
    lists = mac_lists(reversed(shown.unicast_table), reversed(shown.multicast_table))
    parts = {"features": features, **_parts(shown, settable, lists)}
    return found_of(
        parts,
        device=shown.name,
        missing=[*_hidden(shown, settable), *_untold(settable)],
        notes=[*lists.notes, *_vlan_notes(shown, settable)],
    )


def _check_vlan(shown: RxFilter, features: FeatureSet) -> None:
    """The one thing in the answer that tells a feature."""
    negotiated = shown.vlan != "all"
    if negotiated is not (Feature.CTRL_VLAN in features):
        which = "was" if negotiated else "was not"
        raise FormatError(
            f"{shown.name}: expected the features that its guest negotiated; by query-rx-filter "
            f"CTRL_VLAN {which} among them"
        )


def _parts(shown: RxFilter, features: FeatureSet, lists: MacLists) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if Feature.CTRL_MAC_ADDR in features:
        parts["mac"] = shown.main_mac
    if modes := dict(_modes(shown, features)):
        parts["rx"] = modes
    if Feature.CTRL_RX in features:
        parts["mac_table"] = {
            "unicast": lists.unicast,
            "multicast": lists.multicast,
            "unicast_overflow": shown.unicast_overflow,
            "multicast_overflow": shown.multicast_overflow,
        }
    if Feature.CTRL_VLAN in features:
        parts["vlans"] = tuple(sorted(shown.vlan_table))
    return parts


def _modes(shown: RxFilter, features: FeatureSet) -> Iterator[tuple[str, bool]]:
    if Feature.CTRL_RX in features:
        yield "promisc", shown.promiscuous
        if shown.multicast != "none":
            yield "allmulti", shown.multicast == "all"
    if Feature.CTRL_RX_EXTRA in features:
        if shown.unicast != "none":
            yield "alluni", shown.unicast == "all"
        yield "nomulti", shown.multicast == "none"
        yield "nouni", shown.unicast == "none"
        yield "nobcast", shown.nobcast


def _hidden(shown: RxFilter, features: FeatureSet) -> Iterator[Missing]:
    if Feature.CTRL_RX in features and shown.multicast == "none":
        yield Missing("rx.allmulti", f"nomulti hides it, and {_UNTOLD}")
    if Feature.CTRL_RX_EXTRA in features and shown.unicast == "none":
        yield Missing("rx.alluni", f"nouni hides it, and {_UNTOLD}")


def _untold(features: FeatureSet) -> Iterator[Missing]:
    if not features.isdisjoint({Feature.MQ, Feature.RSS}):
        yield Missing("queue_pairs", _UNTOLD)
    for feature, part in (
        (Feature.RSS, "rss"),
        (Feature.HASH_REPORT, "hash_report"),
        (Feature.HASH_TUNNEL, "hash_tunnel"),
        (Feature.CTRL_GUEST_OFFLOADS, "guest_offloads"),
    ):
        if feature in features:
            yield Missing(part, _UNTOLD)
    if Feature.NOTF_COAL in features:
        yield Missing("coalescing.rx", _NEVER_TOLD)
        yield Missing("coalescing.tx", _NEVER_TOLD)
    if Feature.VQ_NOTF_COAL in features:
        yield Missing("coalescing.queues", _NEVER_TOLD)


def _vlan_notes(shown: RxFilter, features: FeatureSet) -> Iterator[str]:
    if Feature.CTRL_VLAN in features and len(shown.vlan_table) == _EVERY_VLAN:
        yield "every VLAN is let through; a device of QEMU 10.0.2 comes out of its reset so"
