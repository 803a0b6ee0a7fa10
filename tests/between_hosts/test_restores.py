"""Many restores from one host on another, over a network that loses a fifth of everything.

The judge of "exactly once" is the device: each restore has VLANs that no other has, and the
software devices write down every command that they carry out.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.between_hosts.hosts import (
    DESTINATION_ADDRESS,
    DESTINATION_ADDRESS_V6,
    Hosts,
    two_hosts,
    why_unavailable,
)
from tests.between_hosts.source import VLANS_PER_RESTORE
from tests.daemon.support import Json, is_report
from tests.daemon.udp_support import key_file, known_for_long
from tests.support.daemon import ROOT, Daemon, daemon
from tests.support.marks import in_bulk
from tests.support.waiting import GUARD, wait_until
from vdpad.virtio.commands import VlanAdd, decode_command

RESTORES, IN_BULK = 100, 1000
CLIENTS = 32
KEYS, COUNT = "keys", "commands"
PORT = 7117
RELAY_PORT = 7118


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    skip_or_fail(why_unavailable())
    with two_hosts() as each:
        yield each


@contextmanager
def destination(hosts: Hosts, folder: Path) -> Iterator[Daemon]:
    """The daemon on the destination host, which counts its devices' commands."""
    counting = (sys.executable, "-m", "tests.between_hosts.counting", str(folder / COUNT))
    udp = {"listen": f"[::]:{PORT}", "key_file": key_file(folder)}
    records = {"directory": known_for_long(folder / "records")}
    devices = [{"name": f"sim{each}"} for each in range(CLIENTS)]
    command = hosts.destination.command(*counting)
    with daemon(folder, command, udp=udp, records=records, software=devices) as running:
        wait_until(lambda: any("socket" in each for each in running.events("listening")))
        yield running
        # Which makes its log and its count whole.
        assert running.stop() == 0, running.log()


def vlans_added(folder: Path) -> Counter[int]:
    """How often the devices were told each VLAN, by their own count; they were told no more."""
    added: Counter[int] = Counter()
    for line in (folder / COUNT).read_text().splitlines():
        data, ack = line.split()
        command = decode_command(bytes.fromhex(data))
        assert isinstance(command, VlanAdd)
        assert ack == "0"
        added[command.vid] += 1
    return added


@contextmanager
def relay(hosts: Hosts) -> Iterator["subprocess.Popen[str]"]:
    """A bad network on the source host, where its kernel has none."""
    arguments = (str(RELAY_PORT), DESTINATION_ADDRESS, str(PORT))
    with subprocess.Popen(
        hosts.source.command(sys.executable, "-m", "tests.between_hosts.relay", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def restored(hosts: Hosts, restores: int, keys: Path, host: str, port: int) -> Json:
    """What the source host says of so many restores."""
    done = subprocess.run(
        hosts.source.command(
            *(sys.executable, "-m", "tests.between_hosts.source", host, str(port)),
            *(DESTINATION_ADDRESS, str(PORT), str(keys), str(restores), str(CLIENTS)),
        ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result: Json = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("restores", [RESTORES, *in_bulk([IN_BULK])])
def test_restores_over_a_bad_network_are_applied_once_each(
    hosts: Hosts, tmp_path: Path, restores: int
) -> None:
    keys = tmp_path / KEYS
    with destination(hosts, tmp_path) as running:
        if hosts.netem():
            result = restored(hosts, restores, keys, DESTINATION_ADDRESS, PORT)
        else:
            with relay(hosts) as network:
                result = restored(hosts, restores, keys, "127.0.0.1", RELAY_PORT)
                printed, _ = network.communicate()
            was_bad(json.loads(printed), restores)
    print("{seconds:.1f} s; one took {p50:.3f} s (p50), {p99:.3f} s (p99)".format(**result))

    names = [f"vm-{number}" for number in range(restores)]
    assert all(is_report(report, "restored") for report in result["reports"])
    assert sorted(report["migration"] for report in result["reports"]) == sorted(names)
    # The daemon's word, and the devices' own.
    assert Counter(event["migration"] for event in running.events("restored")) == Counter(names)
    vids = range(1, 1 + restores * VLANS_PER_RESTORE)
    assert vlans_added(tmp_path) == Counter(vids)

    refused: Counter[str] = Counter()
    for event in running.events("datagrams-refused"):
        refused += Counter({reason: int(n) for reason, n in map(str.split, event["reasons"])})
    reasons = {"foreign", "too-long", "wrong-key", "expired", "truncated", "replayed"}
    assert refused.keys() == reasons
    assert min(refused.values()) > restores // 20, refused


def was_bad(done: Json, restores: int) -> None:
    """The network did what it is there for."""
    assert 0.15 < done["lost"] / done["came"] < 0.25
    assert done["twice"] > restores // 10
    assert done["late"] > restores // 20
    assert done["overtaken"] > restores // 5


@pytest.mark.parametrize("host", [DESTINATION_ADDRESS, f"[{DESTINATION_ADDRESS_V6}]"])
def test_vdpactl_asks_the_other_host(hosts: Hosts, tmp_path: Path, host: str) -> None:
    with destination(hosts, tmp_path):
        vdpactl = (sys.executable, "-m", "vdpad.cli.vdpactl")
        options = ("--host", f"{host}:{PORT}", "--key-file", str(tmp_path / KEYS), "--json", "info")
        done = hosts.source.run(*vdpactl, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["name"] == "vdpad"
