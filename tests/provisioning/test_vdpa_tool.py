"""The vdpa tool's line, read back as the tool reads it."""

import shlex
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.provisioning import made
from vdpad.host.vdpa import VdpaConfig, WantedDevice
from vdpad.provisioning.vdpa_tool import dev_add
from vdpad.virtio.bits import bits_of
from vdpad.virtio.features import Feature


def test_a_line() -> None:
    features = frozenset({Feature.MTU, Feature.MAC, Feature.VERSION_1, Feature.ACCESS_PLATFORM})
    wanted = WantedDevice(features, bytes.fromhex("525400000007"), 4, 1500)
    assert dev_add("vdpa7", "pci/0000:00:03.0", wanted) == (
        "vdpa dev add name vdpa7 mgmtdev pci/0000:00:03.0 device_features 0x300000028 "
        "mac 52:54:00:00:00:07 max_vqp 4 mtu 1500"
    )


@given(made.configs(), st.text(min_size=1))
def test_it_says_all_that_is_wanted_whatever_the_name(config: VdpaConfig, name: str) -> None:
    wanted = made.wanted(config)
    words = shlex.split(dev_add(name, "vdpasim_net", wanted))
    assert words[:3] == ["vdpa", "dev", "add"]
    said = dict(list(pairwise(words[3:]))[::2])
    assert len(words) == 3 + 2 * len(said)
    assert (said["name"], said["mgmtdev"]) == (name, "vdpasim_net")
    mac, pairs, mtu = (said.get(each) for each in ("mac", "max_vqp", "mtu"))
    assert wanted == WantedDevice(
        bits_of(int(said["device_features"], 16)),
        None if mac is None else bytes.fromhex(mac.replace(":", "")),
        None if pairs is None else int(pairs),
        None if mtu is None else int(mtu),
    )
