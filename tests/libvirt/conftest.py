"""Two hosts for all tests, and a guest on the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .host import Host, host

GUEST = "vm7"
CARD = "52:54:00:12:34:56"

# It has a card on a back end and nothing to boot from. QEMU 7.2 without KVM needs vectors=0.
DOMAIN = f"""
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{GUEST}</name>
  <memory unit='MiB'>64</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='vhostuser'>
      <mac address='{CARD}'/>
      <source type='unix' path='/run/vdpad/vhost-user-net0.sock' mode='client'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <memballoon model='none'/>
  </devices>
  <qemu:override><qemu:device alias='net0'><qemu:frontend>
    <qemu:property name='vectors' type='unsigned' value='0'/>
  </qemu:frontend></qemu:device></qemu:override>
</domain>
"""


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    """The one that the guest leaves, and the one that it comes to."""
    folder = tmp_path_factory.mktemp("hosts")
    with (
        host(folder / "a", "host-a", 16509) as a,
        host(folder / "b", "host-b", 16510) as b,
    ):
        (folder / "a" / "moves" / "guest.xml").write_text(DOMAIN)
        yield a, b


@pytest.fixture
def source(hosts: tuple[Host, Host]) -> Host:
    """With the guest on it."""
    source, _ = hosts
    if GUEST not in source.guests():
        source.output("virsh", "create", "/var/lib/vdpad-moves/guest.xml")
    return source


@pytest.fixture
def destination(hosts: tuple[Host, Host]) -> Iterator[Host]:
    """With nothing on it, neither before nor after."""
    _, destination = hosts
    destination.clear()
    yield destination
    destination.virsh("destroy", GUEST)
    destination.clear()
