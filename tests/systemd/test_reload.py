"""systemctl reload: what is taken, and that wrong settings are told and harm nothing."""

from __future__ import annotations

from tests.vm.journal import latest

from .service import Service

LIMITS = "[limits]\noperations_at_once = 3\n"
ACCESS = '[access.status]\nusers = ["root"]\n'


def most_at_once(service: Service) -> int:
    found: int = service.daemon.result("info")["limits"]["operations_at_once"]
    return found


def test_a_reload_takes_access_and_limits(service: Service) -> None:
    assert most_at_once(service) == 256
    pid = service.pid
    service.drop_in("reload", LIMITS + ACCESS)
    service.systemctl("reload", "vdpad.service")
    service.until(lambda: most_at_once(service) == 3)
    assert service.vdpactl("status", uid="0", gid="vdpad").code == 0
    refused = service.vdpactl("status", uid="nobody", gid="vdpad")
    assert refused.code != 0
    assert "not-allowed" in refused.err
    told = latest(service.vm, "reloaded", f"_PID={pid}")
    assert told["VDPAD_TAKEN"] == ["access", "limits"]
    assert (service.show("ActiveState"), service.pid) == ("active", pid)


def test_wrong_settings_fail_the_reload_and_the_old_ones_hold(service: Service) -> None:
    service.drop_in("reload", LIMITS)
    assert most_at_once(service) == 3
    pid = service.pid
    service.drop_in("reload", LIMITS + "novel = 1\n")
    assert service.sh("systemctl reload vdpad.service").code != 0
    messages = [str(each.get("MESSAGE")) for each in service.entries("-n", "10")]
    assert any("conf.d/reload.toml" in each and "limits.novel" in each for each in messages)
    # Whoever sends the signal past systemctl is told too.
    service.systemctl("kill", "--kill-who=main", "-s", "HUP", "vdpad.service")
    told = latest(service.vm, "not-reloaded", f"_PID={pid}")
    assert "limits.novel" in told["VDPAD_REASON"][0]
    assert most_at_once(service) == 3
    assert (service.show("ActiveState"), service.pid) == ("active", pid)
