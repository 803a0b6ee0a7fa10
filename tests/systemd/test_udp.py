"""Sealed requests, with the drop-in for them and keys that only root can read."""

from __future__ import annotations

from tests.support.waiting import GUARD
from tests.vm.journal import latest

from .service import PLACED, Service

KEYS = "/etc/vdpad/keys"
OTHER_KEYS = "/run/other-keys"
SETTINGS = '[udp]\nlisten = "0.0.0.0:7117"\nkey_file = "keys"\n'


def ask(
    service: Service, host: str, *arguments: str, keys: str = KEYS, seconds: float = GUARD
) -> tuple[int, str]:
    """How the installed client ends, and what it says."""
    where = ("--host", host, "--key-file", keys, "--timeout", str(seconds))
    done = service.vm.run("vdpactl", *where, *arguments)
    return done.code, done.out + done.err


def test_a_sealed_request_is_answered_and_no_other(service: Service) -> None:
    vm = service.vm
    vm.output("vdpactl", "keygen", KEYS)
    vm.output("vdpactl", "keygen", OTHER_KEYS)
    assert vm.output("stat", "-c", "%U %a", KEYS) == "root 600\n"
    service.change(unit=vm.output("cat", f"{PLACED}/udp.conf").partition("[Service]\n")[2])
    service.drop_in("udp", SETTINGS)
    service.start()
    code, said = ask(service, "127.0.0.1", "info")
    assert (code, said.startswith("vdpad ")) == (0, True), said

    # The first daemon of a boot does not know what was let in before it. The next one does.
    service.systemctl("restart", "vdpad.service")
    code, said = ask(service, "127.0.0.1", "info", seconds=5)
    assert (code, said.startswith("vdpad ")) == (0, True), said

    # An address that udp.conf does not name: the kernel lets nothing of it reach the daemon.
    vm.output("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    assert ask(service, "192.0.2.1", "info", seconds=3)[0] == 7
    assert ask(service, "127.0.0.1", "info", keys=OTHER_KEYS, seconds=3)[0] == 7
    told = latest(vm, "datagrams-refused", f"_PID={service.pid}")
    assert told["VDPAD_REASONS"][0].startswith("wrong-key ")
    assert told["VDPAD_ADDRESS"] == ["127.0.0.1"]
