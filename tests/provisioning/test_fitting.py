"""What does not fit is told at once and by path, and nothing else is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.provisioning import made
from vdpad.host.vdpa import VdpaConfig, VdpaDevice, WantedDevice
from vdpad.provisioning.fitting import differences, misfits
from vdpad.provisioning.wanted import NEEDED
from vdpad.state.problems import Problem
from vdpad.virtio.features import FEATURES, Feature, FeatureSet

MAC = bytes.fromhex("525400000007")


def _wanted(*features: Feature, **fields: bytes | int | None) -> WantedDevice:
    plain = WantedDevice(NEEDED | frozenset(features), None, None, None)
    return replace(plain, **fields)  # type: ignore[arg-type]


def _misfits(wanted: WantedDevice, **changes: object) -> dict[str, str]:
    """Paths and messages, on a management device that can do anything."""
    maker = replace(made.maker(frozenset(range(64))), **changes)  # type: ignore[arg-type]
    return {each.path: each.message for each in misfits(wanted, maker, [])}


# --- before it is made ---


@given(made.configs())
def test_whatever_linux_told_of_a_device_fits_one_that_can_as_much(config: VdpaConfig) -> None:
    wanted = made.wanted(config)
    queues = 2 * (wanted.max_virtqueue_pairs or 1) + (Feature.CTRL_VQ in wanted.features)
    assert list(misfits(wanted, made.maker(wanted.features, queues), [])) == []
    ((path, code),) = [
        (each.path, each.code)
        for each in misfits(wanted, made.maker(wanted.features, queues - 1), [])
    ]
    assert (path, code) == ("config.max_virtqueue_pairs", "out-of-range")


@given(made.configs(), st.frozensets(st.integers(0, 63)))
def test_each_feature_that_is_lacking_is_named(config: VdpaConfig, offered: FeatureSet) -> None:
    wanted = made.wanted(config)
    told = [each for each in misfits(wanted, made.maker(offered), []) if each.path == "features"]
    lacking = wanted.features - offered
    assert len(told) == bool(lacking)
    for each in told:
        assert each.code == "missing-feature"
        assert each.message.endswith(FEATURES.sentence(lacking))


def test_a_feature_of_no_netlink_s_is_lacking() -> None:
    wanted = replace(_wanted(), features=NEEDED | {77})
    assert "bit_77" in _misfits(wanted)["features"]


def test_a_device_without_what_every_one_needs() -> None:
    wanted = replace(_wanted(), features=frozenset({Feature.VERSION_1}))
    assert _misfits(wanted) == {"features": "no vDPA device can be without ACCESS_PLATFORM"}


@pytest.mark.parametrize(
    ("feature", "field", "value", "either"),
    [
        (Feature.MAC, "mac", MAC, "MAC"),
        (Feature.MTU, "mtu", 1500, "MTU"),
        (Feature.MQ, "max_virtqueue_pairs", 4, "MQ or RSS"),
        (Feature.RSS, "max_virtqueue_pairs", 1, "MQ or RSS"),
    ],
)
def test_a_field_goes_with_its_feature(
    feature: Feature, field: str, value: bytes | int, either: str
) -> None:
    path = f"config.{field}"
    assert _misfits(_wanted(feature, **{field: value})) == {}
    without_the_feature = list(misfits(_wanted(**{field: value}), made.maker(NEEDED), []))
    assert Problem(path, "missing-feature", f"needs {either}, which is not wanted") in (
        without_the_feature
    )
    without_the_field = _misfits(_wanted(feature))[path]
    assert without_the_field.startswith(f"{either} brings it, and its value is not known")
    assert "vdpactl devices --json" in without_the_field


def test_several_pairs_with_rss_alone_are_what_linux_does_not_make() -> None:
    told = _misfits(_wanted(Feature.RSS, max_virtqueue_pairs=2))
    assert told == {"config.max_virtqueue_pairs": "Linux makes more than one pair only with MQ"}


def test_a_management_device_of_another_class() -> None:
    assert "no network devices" in _misfits(_wanted(), supported_classes=frozenset({2}))["mgmtdev"]


def test_a_kernel_that_does_not_tell() -> None:
    assert "5.17" in _misfits(_wanted(), features=None, max_vqs=None)["mgmtdev"]


def _on_a_bus(*mgmtdevs: str) -> list[str]:
    devices = [VdpaDevice("vp0", each, 1, 0, 3, 256, 1) for each in mgmtdevs]
    maker = made.maker(NEEDED, bus="pci")
    return [each.message for each in misfits(_wanted(), maker, devices)]


def test_hardware_is_made_one_device_of() -> None:
    (told,) = _on_a_bus("pci/vdpasim_net")
    assert "vp0 is there already" in told
    assert _on_a_bus("vdpasim_net", "pci/other") == []


def test_a_simulator_makes_as_many_as_are_asked_for() -> None:
    assert list(misfits(_wanted(), made.maker(NEEDED), [made.SIMULATOR] * 3)) == []


def test_everything_is_told_at_once() -> None:
    wanted = WantedDevice(frozenset({Feature.CSUM, Feature.MTU}), MAC, None, None)
    maker = replace(made.maker(NEEDED, max_vqs=1), supported_classes=frozenset({2}))
    assert [each.path for each in misfits(wanted, maker, [])] == [
        *("mgmtdev", "features", "features", "config.mac", "config.mtu"),
        "config.max_virtqueue_pairs",
    ]


# --- after it was made ---


@given(made.configs(), made.configs())
def test_what_came_out_as_wanted_has_no_differences(config: VdpaConfig, other: VdpaConfig) -> None:
    wanted = made.wanted(config)
    assert list(differences(wanted, config)) == []
    # Whether its link is up and what is negotiated is not what a device is made with.
    assert list(differences(wanted, replace(config, status=0, negotiated=NEEDED))) == []
    same = made.wanted(other) == wanted
    assert bool(list(differences(wanted, other))) is not same


def test_each_difference_is_told_with_both() -> None:
    wanted = _wanted(Feature.MAC, Feature.MTU, mac=MAC, mtu=1500)
    came = VdpaConfig("vdpa7", NEEDED | {Feature.MAC, Feature.MQ}, None, bytes(6), None, 4, None)
    assert {each.path: each.message for each in differences(wanted, came)} == {
        "features": "lacking of what is wanted: MTU; there besides: MQ",
        "config.mac": "52:54:00:00:00:07 is wanted, the device has 00:00:00:00:00:00",
        "config.max_virtqueue_pairs": "none is wanted, the device has 4",
        "config.mtu": "1500 is wanted, the device has none",
    }


def test_a_device_whose_features_are_not_told() -> None:
    came = VdpaConfig("vdpa7", None, None, None, None, None, None)
    ((path, code),) = [(each.path, each.code) for each in differences(_wanted(), came)]
    assert (path, code) == ("features", "not-told")
