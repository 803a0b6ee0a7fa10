"""The kernel's devices, with the drop-in that gives them to the service, and without."""

from __future__ import annotations

from tests.vm.host import features_of, migration, negotiated, vhost_vdpa
from tests.vm.test_restore import ALL_PARTS, COMMANDS, NO_FILTER, assert_restored, state_for

from .service import Service
from .test_service import restore as restore_on_software

VLANS = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [42]}


def owner(service: Service, node: str) -> str:
    return service.sh(f"stat -c '%U %a' {node}").out.strip()


# --- without ---


def test_without_it_a_device_is_refused_and_nothing_harmed(service: Service) -> None:
    for target in (vhost_vdpa("vp0"), vhost_vdpa("/dev/vhost-vdpa-0")):
        refused = service.daemon.refused(
            "restore", migration=migration(), state=VLANS, target=target
        )
        assert refused["kind"] == "no-such-device"
        assert "vhost-vdpa.conf" in refused["message"]
    for refused in (
        service.daemon.refused("devices"),
        service.daemon.refused("check", state=VLANS, target=vhost_vdpa("vp0")),
    ):
        assert refused["kind"] == "not-allowed"
        assert "vhost-vdpa.conf" in refused["message"]
    assert negotiated(service.vm, "vp0") is None
    assert service.vm.rx_filter().vlan == NO_FILTER
    restore_on_software(service)


# --- with ---


def test_the_nodes_are_the_service_s(with_drop_in: Service) -> None:
    for node in ("/dev/vhost-vdpa-0", "/dev/vhost-vdpa-1"):
        assert owner(with_drop_in, node) == "vdpad 600"


def test_devices_and_check(with_drop_in: Service) -> None:
    daemon = with_drop_in.daemon
    assert [each["name"] for each in daemon.result("devices")] == ["vp0", "sim0"]
    assert "CTRL_VLAN" in features_of(daemon, "vp0")
    checked = daemon.result("check", state=VLANS, target=vhost_vdpa("vp0"))
    assert (checked["compatible"], checked["commands"]) == (True, 1)


def test_a_whole_state_is_restored_and_kept(with_drop_in: Service) -> None:
    daemon = with_drop_in.daemon
    report = daemon.result(
        *("restore",),
        migration=migration(),
        state=state_for(daemon, "vp0", ALL_PARTS.parts),
        target=vhost_vdpa("vp0"),
    )
    assert_restored(report, COMMANDS)
    assert len(with_drop_in.vm.rx_filter().vlan_table) == 4094
    assert daemon.result("release", device="vp0") == {}
    assert with_drop_in.vm.rx_filter().vlan == NO_FILTER


def test_it_is_still_nobody(with_drop_in: Service) -> None:
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(with_drop_in.status(key), 16) == 0
    uid = with_drop_in.vm.output("id", "-u", "vdpad").strip()
    assert set(with_drop_in.status("Uid").split()) == {uid}
    limits = with_drop_in.vm.output("cat", f"/proc/{with_drop_in.pid}/limits")
    (locked,) = (line.split() for line in limits.splitlines() if "locked memory" in line)
    assert locked[3:5] == [str(64 << 20)] * 2


def test_it_can_what_the_drop_in_says_and_no_more(with_drop_in: Service) -> None:
    found = with_drop_in.probe()
    can = {name for name, told in found.items() if told == "yes"}
    allowed = {"unix", "null", "write records", "write tmp", "fork"}
    assert can == {*allowed, "netlink", "vhost-vdpa"}, found


def test_a_device_that_comes_later_is_the_service_s_too(with_drop_in: Service) -> None:
    vm = with_drop_in.vm
    vm.output("vdpa", "dev", "del", "sim0")
    vm.output(
        *("vdpa", "dev", "add", "name", "sim0", "mgmtdev", "vdpasim_net"),
        *("mac", "52:54:00:00:00:01"),
    )
    with_drop_in.until(lambda: owner(with_drop_in, "/dev/vhost-vdpa-1") == "vdpad 600")
    daemon = with_drop_in.daemon
    state = {"version": 1, "features": ["CTRL_VQ", "CTRL_MAC_ADDR"], "mac": "52:54:00:00:00:09"}
    target = vhost_vdpa("sim0")
    assert_restored(daemon.result("restore", migration=migration(), state=state, target=target), 1)
    daemon.result("release", device="sim0")


def test_a_stop_gives_the_device_back(with_drop_in: Service) -> None:
    daemon = with_drop_in.daemon
    daemon.result("restore", migration=migration(), state=VLANS, target=vhost_vdpa("vp0"))
    assert with_drop_in.vm.rx_filter().vlan_table == (42,)
    with_drop_in.systemctl("stop", "vdpad.service")
    assert negotiated(with_drop_in.vm, "vp0") is None
    assert with_drop_in.vm.rx_filter().vlan == NO_FILTER
