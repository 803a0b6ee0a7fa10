"""What `make demo-migration` shows: a guest moves between two QEMUs while it sends packets.

Each QEMU has its card from a vdpad-vhost-user on a software device, and keeps its guest's control
queue (-netdev vhost-user); its monitor tells the back end the filter. A Linux guest sets its card
up by ip, bridge and ethtool, and pings itself by way of the device, which loops its packets. Then
QEMU migrates it live, and this tells what went where.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.backend.process import BackEndProcess
from tests.qemu.versions import SYSTEM, TRIXIE, TRIXIE_BACKPORTS, Version, release
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.waiting import wait_until

from .machine import MEMORY, awaited, booted, why_unavailable
from .vhost_user import DataQueues, OnBackEnd, asked, started

KIND = "pc"
MOVES_A_DEVICE_STATE = (10, 0)
"""The first release of QEMU that does."""
SETTINGS = (
    "ethtool -L eth0 combined 2",
    "ip link set eth0 allmulticast on",
    "bridge fdb add 52:54:00:00:00:77 dev eth0",
    "ip link add link eth0 name eth0.5 type vlan id 5",
    "ip link add link eth0 name eth0.100 type vlan id 100",
)
VLANS = [0, 5, 100]
"""Which it has then, as the last of all; Linux adds the first itself."""
PINGS = "(ping -q -s 1400 -i 0.01 192.0.2.2 > /dev/null) &"
FILTER = ("mac", "rx", "mac_table", "vlans")
"""Of a state."""
MONITOR = "qmp"
"""In a back end's folder."""
VDPACTL = str(Path(sys.executable).with_name("vdpactl"))


class NoQemu(Exception):
    """Nothing here could show it."""


def main() -> int:
    """Runs the demo; 0 where the destination's device has the filter that the source's had."""
    try:
        qemu = found_qemu()
    except NoQemu as error:
        print(f"demo-migration: {error}", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="vdpad-demo-", dir="/dev/shm")
        )
        source, destination = (
            stack.enter_context(back_end(Path(folder) / name)) for name in ("source", "destination")
        )
        return show(qemu, source, destination)


def found_qemu() -> Version:
    """One that moves a back end's state."""
    why = why_unavailable()
    if why is not None:
        raise NoQemu(f"expected a host that can run a guest: {why}")
    for each in (TRIXIE_BACKPORTS, TRIXIE, SYSTEM):
        if why_no_version(each) is None and (release(each.program) or ()) >= MOVES_A_DEVICE_STATE:
            return each
    got = why_no_version(TRIXIE_BACKPORTS) or "an older one"
    raise NoQemu(
        f"expected QEMU 10.0 or later, which moves a back end's state, got {got}; run "
        "`.ci/qemu trixie-backports`, which fetches it, or install one"
    )


@contextmanager
def back_end(folder: Path) -> Iterator[BackEndProcess]:
    """One that listens, and follows the filter by its QEMU's monitor."""
    folder.mkdir()
    process = started(folder, "--qmp", str(folder / MONITOR))
    try:
        yield process
    finally:
        process.stop()


def show(qemu: Version, source: BackEndProcess, destination: BackEndProcess) -> int:
    """From the guest's boot to the end of its move."""
    numbers = ".".join(map(str, release(qemu.program) or ()))
    say(f"QEMU {numbers} boots a Linux guest of {MEMORY} whose card is a back end's …")
    with ExitStack() as before, ExitStack() as after:
        here = before.enter_context(booted([card(source)], qemu=qemu, kind=KIND))
        at_source = OnBackEnd(here, source)
        set_up(at_source)
        had = told(source)
        capture(source, "source")
        say("\nIt is migrated live to another QEMU, whose card is another back end's …")
        there = after.enter_context(awaited([card(destination)], qemu=qemu, kind=KIND))
        packets = at_source.packets()
        here.begin_to_move(there)
        migration = here.until_moved(there)
        there.qmp("cont")
        before.close()
        moved = OnBackEnd(there, destination)
        wait_until(lambda: moved.packets()[1] > packets[1] + 100, said=there.printed)
        tell(migration, source, destination)
        say(f"  {'packets received':<22}{packets[1]} before, {moved.packets()[1]} by now")
        wait_until(lambda: destination.events("filter-followed"), said=destination.log)
        capture(destination, "destination")
        same = told(destination) == had
    say(f"\nThe destination's device has {'the filter of the source' if same else 'another one'}.")
    return 0 if same else 1


def set_up(on: OnBackEnd) -> None:
    """The guest sets its card up, which the device has then, and sends packets from now on."""
    say("The guest sets its card up, and sends packets all the time:\n")
    for command in SETTINGS:
        say(f"  # {command}")
    on.guest.run(*SETTINGS)
    on.send(1)
    on.guest.run(PINGS)
    wait_until(lambda: told(on.process).get("vlans") == VLANS, said=on.process.log)


def card(process: BackEndProcess) -> DataQueues:
    """The guest's, on a back end that follows its filter."""
    return DataQueues(process.front_end, monitor=process.front_end.with_name(MONITOR))


def tell(migration: dict[str, Any], source: BackEndProcess, destination: BackEndProcess) -> None:
    """The report of a move."""
    ram = migration["ram"]
    (logged,) = source.events("logging-ended")
    (saved,) = source.events("state-saved")
    (loaded,) = destination.events("state-loaded")
    rows = {
        "memory": f"{ram['transferred'] >> 20} MiB sent in {migration['total-time']} ms",
        "marked": f"{logged['pages']} pages that the device has written ({logged['way']})",
        "downtime": f"{migration['downtime']} ms",
        "the back end's state": f"{saved['bytes']} bytes in QEMU's stream; "
        f"tried on the other device in {loaded['duration_us'] / 1000:.1f} ms",
    }
    say("\nIt has moved:\n")
    for name, value in rows.items():
        say(f"  {name:<22}{value}")


def told(process: BackEndProcess) -> dict[str, Any]:
    """The filter of a device."""
    state = asked(process, "capture")["state"]
    return {name: state[name] for name in FILTER if name in state}


def capture(process: BackEndProcess, side: str) -> None:
    """Has vdpactl show what is captured."""
    say(f"\n$ vdpactl --backend {side} capture")
    subprocess.run([VDPACTL, "--backend", str(process.varlink), "capture"], check=True)


def say(line: str) -> None:
    """A line, before those of programs that are run afterwards."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
