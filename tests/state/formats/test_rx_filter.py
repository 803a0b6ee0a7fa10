"""query-rx-filter's answer as a state: what a guest may have set, and what is hidden."""

from typing import Any

import pytest

from tests.support.rx_filter import card
from vdpad.state.formats.rx_filter import found_in, rx_filters
from vdpad.state.found import FormatError, Found
from vdpad.virtio.features import FEATURES, Feature, FeatureSet

# A device at reset, as QEMU 7.2 shows it.
SHOWN = card("net0", promiscuous=True)
FILTER = frozenset(
    {
        Feature.CTRL_VQ,
        Feature.CTRL_RX,
        Feature.CTRL_RX_EXTRA,
        Feature.CTRL_VLAN,
        Feature.CTRL_MAC_ADDR,
        Feature.VERSION_1,
    }
)


def _found(features: FeatureSet = FILTER, **changes: Any) -> Found:
    answer = card(**{"name": "net0", "promiscuous": True, **changes})
    (shown,) = rx_filters([answer])
    return found_in(shown, features)


def _state(features: FeatureSet = FILTER, **changes: Any) -> dict[str, Any]:
    found = _found(features, **changes)
    assert found.state is not None, found.problems
    return found.state.model_dump(mode="json", exclude_none=True)


def _missing(found: Found) -> list[str]:
    return [each.part for each in found.missing]


def test_a_device_at_reset() -> None:
    found = _found()
    assert found.device == "net0"
    assert (found.problems, found.missing, found.notes) == ((), (), ())
    assert _state() == {
        "version": 1,
        "features": FEATURES.names(FILTER),
        "mac": "52:54:00:12:34:56",
        "rx": {
            "promisc": True,
            "allmulti": False,
            "alluni": False,
            "nomulti": False,
            "nouni": False,
            "nobcast": False,
        },
        "mac_table": {
            "unicast": [],
            "multicast": [],
            "unicast_overflow": False,
            "multicast_overflow": False,
        },
        "vlans": [],
    }


@pytest.mark.parametrize(
    ("changes", "modes", "hidden"),
    [
        ({"promiscuous": False}, {"promisc": False}, []),
        ({"broadcast_allowed": True}, {"nobcast": True}, []),
        ({"unicast": "all"}, {"alluni": True}, []),
        ({"multicast": "all"}, {"allmulti": True}, []),
        ({"unicast": "none"}, {"nouni": True}, ["rx.alluni"]),
        ({"multicast": "none"}, {"nomulti": True}, ["rx.allmulti"]),
    ],
)
def test_modes(changes: dict[str, Any], modes: dict[str, bool], hidden: list[str]) -> None:
    expected = {**_state()["rx"], **modes}
    for path in hidden:
        del expected[path.removeprefix("rx.")]
    assert _state(**changes)["rx"] == expected
    assert _missing(_found(**changes)) == hidden


def test_tables_come_in_the_guest_s_order() -> None:
    unicast = [f"52:54:00:00:00:0{at}" for at in range(3)]
    multicast = ["33:33:00:00:00:02", "01:00:5e:00:00:01"]
    table = _state(unicast_table=unicast[::-1], multicast_table=multicast[::-1])["mac_table"]
    assert (table["unicast"], table["multicast"]) == (unicast, multicast)


def test_addresses_in_the_wrong_table_are_put_right_and_told() -> None:
    found = _found(unicast_table=["01:00:5e:00:00:01", "52:54:00:00:00:01"])
    assert found.state is not None
    assert found.state.mac_table is not None
    assert len(found.state.mac_table.unicast) == len(found.state.mac_table.multicast) == 1
    (note,) = found.notes
    assert "01:00:5e:00:00:01 stood in" in note


def test_an_overflow_is_kept() -> None:
    assert _state(unicast_overflow=True)["mac_table"]["unicast_overflow"] is True
    assert _state(multicast_overflow=True)["mac_table"]["multicast_overflow"] is True


def test_vlans() -> None:
    assert _state(vlan="normal", vlan_table=[300, 7, 6, 5, 0])["vlans"] == [0, [5, 7], 300]


def test_a_table_of_every_vlan_is_told() -> None:
    found = _found(vlan="normal", vlan_table=list(range(4095, -1, -1)))
    assert found.state is not None
    assert found.state.vlans == tuple(range(4096))
    assert any("every VLAN" in note for note in found.notes)


@pytest.mark.parametrize(
    ("features", "parts"),
    [
        (FILTER - {Feature.CTRL_MAC_ADDR}, {"rx", "mac_table", "vlans"}),
        (FILTER - {Feature.CTRL_RX, Feature.CTRL_RX_EXTRA}, {"mac", "vlans"}),
        (FILTER - {Feature.CTRL_RX}, {"mac", "rx", "vlans"}),
        (frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN}), {"vlans"}),
    ],
)
def test_what_the_features_do_not_let_a_guest_set_is_no_part(
    features: FeatureSet, parts: set[str]
) -> None:
    assert _state(features).keys() - {"version", "features"} == parts


def test_modes_go_by_their_own_features() -> None:
    assert _state(FILTER - {Feature.CTRL_RX_EXTRA})["rx"].keys() == {"promisc", "allmulti"}
    extra = {"alluni", "nomulti", "nouni", "nobcast"}
    assert _state(FILTER - {Feature.CTRL_RX})["rx"].keys() == extra


def test_without_a_control_queue_there_is_nothing() -> None:
    assert _state(frozenset({Feature.MAC}), vlan="all").keys() == {"version", "features"}
    extra = frozenset({Feature.CTRL_RX_EXTRA, Feature.CTRL_GUEST_OFFLOADS, Feature.NOTF_COAL})
    assert _state(extra, vlan="all").keys() == {"version", "features"}
    assert _missing(_found(extra, vlan="all")) == []


def test_features_without_what_they_require_are_a_state_with_a_note() -> None:
    found = _found(FILTER | {Feature.GUEST_TSO4})
    assert found.state is not None
    assert [note.partition(", which")[0] for note in found.notes] == [
        "the guest negotiated GUEST_TSO4 without GUEST_CSUM"
    ]


@pytest.mark.parametrize(
    ("feature", "missing"),
    [
        (Feature.MQ, ["queue_pairs"]),
        (Feature.RSS, ["queue_pairs", "rss"]),
        (Feature.HASH_REPORT, ["hash_report"]),
        (Feature.CTRL_GUEST_OFFLOADS, ["guest_offloads"]),
        (Feature.NOTF_COAL, ["coalescing.rx", "coalescing.tx"]),
        (Feature.VQ_NOTF_COAL, ["coalescing.queues"]),
    ],
)
def test_what_qemu_does_not_tell_is_missing(feature: Feature, missing: list[str]) -> None:
    assert _missing(_found(FILTER | {feature})) == missing


@pytest.mark.parametrize(
    ("features", "vlan", "said"),
    [(FILTER, "all", "was not among"), (FILTER - {Feature.CTRL_VLAN}, "none", "was among")],
)
def test_features_that_qemu_contradicts_are_refused(
    features: FeatureSet, vlan: str, said: str
) -> None:
    with pytest.raises(FormatError, match=f"CTRL_VLAN {said}"):
        _found(features, vlan=vlan)


def test_settings_that_are_no_state_are_problems() -> None:
    found = _found(main_mac="01:00:00:00:00:00", vlan="normal", vlan_table=[5, 5, 5000])
    assert found.state is None
    assert {each.path.split(".")[0] for each in found.problems} == {"vlans"}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        [None],
        [{}],
        [{**SHOWN, "promiscuous": 1}],
        [{**SHOWN, "main-mac": "x"}],
        [{**SHOWN, "vlan": "some"}],
        [{**SHOWN, "vlan-table": ["1"]}],
        [{**SHOWN, "unicast-table": [1]}],
        [{key: value for key, value in SHOWN.items() if key != "broadcast-allowed"}],
    ],
)
def test_what_is_no_answer_of_qemu_s_is_refused(answer: object) -> None:
    with pytest.raises(FormatError, match="query-rx-filter: "):
        rx_filters(answer)


def test_what_a_later_qemu_adds_is_left_alone() -> None:
    assert len(rx_filters([{**SHOWN, "newest": 1}])) == 1
    assert rx_filters([]) == []


def test_of_a_table_that_is_all_wrong_the_first_entry_is_told() -> None:
    for table in ("unicast-table", "multicast-table", "vlan-table"):
        with pytest.raises(FormatError) as caught:
            rx_filters([{**SHOWN, table: [None] * 1000}])
        assert f"{table}.0: " in str(caught.value)
        assert "more problems" not in str(caught.value)
