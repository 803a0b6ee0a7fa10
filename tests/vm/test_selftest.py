"""vdpactl selftest on both kinds of device."""

from __future__ import annotations

import json
import sys
from typing import Any

from .host import holding
from .machine import Machine, Result

KNOWN_BUG = "acknowledged behind MAC_ADDR_SET in one batch"


def selftest(vm: Machine, *arguments: str) -> Result:
    """How it ends and what it prints."""
    return vm.run(sys.executable, "-m", "vdpad.cli.vdpactl", *arguments)


def as_json(vm: Machine, device: str, code: int) -> Any:
    done = selftest(vm, "--json", "selftest", device)
    assert done.code == code, done
    return json.loads(done.out)


def test_vp_vdpa_answers_alike_alone_and_in_a_batch(vm: Machine) -> None:
    found = as_json(vm, "vp0", 0)
    assert found["findings"] == []
    names = [each["command"] for each in found["commands"]]
    assert {"MAC_ADDR_SET", "MQ_HASH_CONFIG", "GUEST_OFFLOADS_SET", "VLAN_ADD", "VLAN_DEL"} <= set(
        names
    )
    assert {each["alone"]["ack"] for each in found["commands"]} == {0}
    assert {each["batch"]["ack"] for each in found["commands"]} == {0}
    assert found["batch"]["doorbells"] < found["alone"]["doorbells"] == len(names)
    assert "fail" not in {each["verdict"] for each in found["cases"]}
    identity = found["identity"]
    assert (identity["device"], identity["parent_driver"]) == ("vp0", "vp-vdpa")
    assert identity["mgmtdev"].startswith("pci/")
    assert found["repeat"] == 10
    # It was reset afterwards.
    assert vm.rx_filter().vlan == "all"


def test_the_simulator_s_bug_is_found(vm: Machine) -> None:
    found = as_json(vm, "sim0", 8)
    assert [each["command"] for each in found["commands"]] == ["MAC_ADDR_SET"]
    (finding,) = found["findings"]
    assert KNOWN_BUG in finding
    assert "vdpa_sim_net" in finding
    failed = [each["id"] for each in found["cases"] if each["verdict"] == "fail"]
    assert failed == ["unknown-class.in-batch"]
    assert found["identity"]["mgmtdev"] == "vdpasim_net"


def test_for_people(vm: Machine) -> None:
    done = selftest(vm, "selftest", "/dev/vhost-vdpa-1")
    assert (done.code, done.err) == (8, "")
    assert ["MAC_ADDR_SET", "OK", "OK"] in [
        [word for at, word in enumerate(line.split()) if at in (0, 2, 4)]
        for line in done.out.splitlines()
    ]
    assert KNOWN_BUG in done.out


def test_a_device_that_is_in_use_is_left_alone(vm: Machine) -> None:
    with holding(vm, "/dev/vhost-vdpa-0") as pid:
        done = selftest(vm, "selftest", "vp0")
    assert (done.code, done.out) == (10, "")
    assert f"vp0 is in use by sleep (pid {pid})" in done.err


def test_no_device(vm: Machine) -> None:
    for device in ("vp9", "/dev/null"):
        done = selftest(vm, "selftest", device)
        assert (done.code, done.out) == (9, "")
        assert "expected" in done.err
        error = as_json(vm, device, 9)["error"]
        assert error["data"] == {"kind": "no-such-device"}
