"""The service under systemd: started by its socket, watched, stopped, and able to do little."""

from __future__ import annotations

import signal

from tests.vm.host import migration
from tests.vm.test_restore import assert_restored

from .service import CONFIG, SOCKET, VARLINK, Service

STATE = {
    "version": 1,
    "features": ["CTRL_VQ", "CTRL_VLAN", "MAC", "CTRL_MAC_ADDR"],
    "mac": "52:54:00:12:34:56",
    "vlans": [5, [100, 134]],
}
COMMANDS = 37
SOFTWARE = {"kind": "software", "name": "sim0"}
EXAMPLE = "/usr/share/doc/vdpad/examples/state.json"


def restore(service: Service) -> str:
    """A restore on the software device that must succeed; its migration."""
    name = migration()
    report = service.daemon.result("restore", migration=name, state=STATE, target=SOFTWARE)
    assert_restored(report, COMMANDS)
    return name


def test_the_first_datagram_starts_it(service: Service) -> None:
    service.systemctl("stop", "vdpad.service")
    assert service.systemctl("is-active", "vdpad.socket").strip() == "active"
    assert service.show("ActiveState") == "inactive"
    assert service.daemon.result("info")["name"] == "vdpad"
    service.until(lambda: service.show("ActiveState") == "active")
    assert service.show("SubState") == "running"
    assert service.show("StatusText") == f"Listening on {SOCKET}"
    assert service.show("Type") == "notify"
    assert service.show("WatchdogUSec") == "30s"
    assert service.show("NRestarts") == "0"
    restore(service)
    assert service.vdpactl("restore", migration(), EXAMPLE, "--software", "sim0").code == 0


def test_the_first_connection_starts_it(service: Service) -> None:
    service.systemctl("stop", "vdpad.service")
    assert service.pid == 0
    assert service.vdpactl("--socket", VARLINK, "info").code == 0
    assert service.pid != 0
    name = restore(service)
    assert service.vdpactl("--socket", VARLINK, "status", name).code == 0


def test_what_is_enabled_comes_with_the_boot(service: Service) -> None:
    """By the targets that a boot brings up."""
    service.systemctl("stop", "vdpad.socket", "vdpad.service")
    assert service.systemctl("is-enabled", "vdpad.socket").strip() == "enabled"
    service.systemctl("start", "sockets.target")
    assert service.systemctl("is-active", "vdpad.socket").strip() == "active"
    assert service.show("ActiveState") == "inactive"
    service.systemctl("enable", "vdpad.service")
    service.systemctl("start", "multi-user.target")
    assert service.show("ActiveState") == "active"
    restore(service)
    service.systemctl("disable", "vdpad.service")
    service.systemctl("enable", "vdpad.socket")


def test_its_socket_and_folders(service: Service) -> None:
    service.daemon.result("info")
    said = service.vm.output(
        "stat", "-c", "%n %U:%G %a", "/run/vdpad", SOCKET, VARLINK, "/run/vdpad/records"
    )
    assert said.splitlines() == [
        "/run/vdpad root:root 755",
        f"{SOCKET} root:vdpad 660",
        f"{VARLINK} root:vdpad 660",
        "/run/vdpad/records vdpad:vdpad 700",
    ]


def test_who_is_not_in_the_group_is_kept_out(service: Service) -> None:
    assert service.vdpactl("info", uid="nobody", gid="vdpad").code == 0
    outsider = service.vdpactl("info", uid="nobody", gid="nogroup")
    assert outsider.code != 0
    assert "Permission denied" in outsider.err


def test_the_kernel_s_word_of_who_asks_reaches_the_daemon(service: Service) -> None:
    """A user namespace of the daemon's own would make nobody of everybody."""
    service.change(config="allowed_uids = [0, 2]\n")
    for socket in (SOCKET, VARLINK):
        assert service.vdpactl("--socket", socket, "info", uid="2", gid="vdpad").code == 0
        refused = service.vdpactl("--socket", socket, "info", uid="3", gid="vdpad")
        assert refused.code != 0
        assert "not-allowed" in refused.err


def test_its_privileges_are_none(service: Service) -> None:
    service.daemon.result("info")
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(service.status(key), 16) == 0
    assert service.status("NoNewPrivs") == "1"
    assert service.status("Seccomp") == "2"
    namespaces = service.vm.output(
        "readlink", "/proc/1/ns/net", f"/proc/{service.pid}/ns/net"
    ).split()
    assert len(set(namespaces)) == 2


def test_what_the_unit_forbids_is_forbidden(service: Service) -> None:
    found = service.probe()
    can = {name for name, told in found.items() if told == "yes"}
    assert can == {"unix", "null", "write records", "write tmp", "fork"}, found


# --- faults ---


def test_a_stuck_daemon_is_killed_and_comes_back(service: Service) -> None:
    service.change(unit="WatchdogSec=4")
    restore(service)
    stuck = service.pid
    service.vm.output("sleep", "9")
    assert (service.pid, service.show("NRestarts")) == (stuck, "0")  # not while it runs
    service.vm.output("kill", "-STOP", str(stuck))
    number = service.daemon.begin("info")  # while nobody answers
    service.until(lambda: service.show("NRestarts") == "1")
    assert service.vm.finish(number)["result"]["name"] == "vdpad"
    assert service.pid not in (0, stuck)
    restore(service)
    messages = [str(each.get("MESSAGE")) for each in service.entries("-n", "60")]
    assert any("Watchdog timeout (limit 4s)" in each for each in messages)
    # Where it was.
    assert any("Fatal Python error: Aborted" in each for each in messages)
    assert any("base_events.py" in each for each in messages)


def test_a_killed_daemon_comes_back(service: Service) -> None:
    service.daemon.result("info")
    before, restarts = service.pid, int(service.show("NRestarts"))
    service.vm.output("kill", f"-{signal.SIGKILL:d}", str(before))
    restore(service)
    assert service.pid not in (0, before)
    assert int(service.show("NRestarts")) == restarts + 1


def test_settings_that_are_wrong_are_told_in_the_journal(service: Service) -> None:
    service.change(config="sockett = 1\n")
    assert service.sh("systemctl start vdpad.service").code != 0
    messages = [str(each.get("MESSAGE")) for each in service.entries("-n", "20")]
    assert any(CONFIG in each and "sockett" in each for each in messages)


# --- the end ---


def test_a_stop_ends_it_and_leaves_the_socket(service: Service) -> None:
    name = restore(service)
    service.systemctl("stop", "vdpad.service")
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert _left(service) == ["io.vdpad", "records", "vdpad.sock"]
    # It is there again, and knows what was.
    assert service.daemon.result("status", migration=name)["state"] == "restored"


def test_a_stop_waits_for_the_commit_under_way(service: Service) -> None:
    """For longer than TimeoutStopSec=, since the daemon asks for more."""
    service.change(
        unit="TimeoutStopSec=6",
        config='[[software]]\nname = "sim0"\nmisbehave = { seconds_a_command = 0.4 }\n',
    )
    service.start()
    name = migration()
    number = service.daemon.begin(
        "restore", migration=name, state=STATE, target=SOFTWARE, deadline_ms=60_000
    )
    service.until(
        lambda: (
            service.daemon.reply("status", migration=name).get("result", {}).get("state")
            == "committing"
        )
    )
    script = "began=$(date +%s); systemctl stop vdpad.service; echo $(($(date +%s) - began))"
    stop = service.vm.begin("run", argv=["sh", "-c", script])
    assert_restored(service.vm.finish(number)["result"], COMMANDS)
    assert int(service.vm.finish(stop)["out"]) > 8
    assert service.show("Result") == "success"


def _left(service: Service) -> list[str]:
    """What is in the daemon's folder, but what the machine's back ends have there."""
    there = service.vm.output("ls", "/run/vdpad").split()
    return [each for each in there if each != "vhost-user"]


def test_the_socket_s_end_takes_its_file(service: Service) -> None:
    service.systemctl("stop", "vdpad.socket", "vdpad.service")
    assert _left(service) == ["records"]
    service.systemctl("start", "vdpad.socket")
    restore(service)
