# Two network namespaces and a veth pair
#
# Each namespace is held by a process that waits for the end of its standard input; `nsenter` starts
# others in it. Without root the first one has a user namespace too, in which the second one is
# made, so that a link may have an end in each. Everything goes when the holders go.
"""Two hosts on this machine: start, run something on one, end."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

SOURCE_ADDRESS = "10.71.0.1"
DESTINATION_ADDRESS = "10.71.0.2"
DESTINATION_ADDRESS_V6 = "fd71::2"

_SECONDS = 10.0

# 20 % lost, the rest delayed so that many overtake others, some of them twice.
_NETEM = ("delay", "5ms", "5ms", "loss", "20%", "duplicate", "10%", "reorder", "25%", "50%")


@dataclass(frozen=True)
class Host:
    """A network namespace, by the process that holds it."""

    pid: int

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs something on this host."""
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        return ["nsenter", "-t", str(self.pid), *user, "-n", "--", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a command on this host came to."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=_SECONDS, check=False
        )

    def must(self, *arguments: str) -> None:
        """Runs a command that has to do its work."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)


@dataclass(frozen=True)
class Hosts:
    """The two, which reach each other at the addresses above."""

    source: Host
    destination: Host

    def netem(self) -> bool:
        """Makes the network between them a bad one, if this kernel can (sch_netem)."""
        ends = ((self.source, "src0"), (self.destination, "dst0"))
        made = [
            host.run("tc", "qdisc", "add", "dev", link, "root", "netem", *_NETEM).returncode == 0
            for host, link in ends
        ]
        return all(made)


@functools.cache
def why_unavailable() -> str | None:
    """Say what keeps this machine from having two hosts, or None."""
    for program in ("unshare", "nsenter", "setpriv", "ip", "tc"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        with two_hosts():
            return None
    except (OSError, AssertionError, subprocess.SubprocessError) as error:
        return f"no two network namespaces: {error}"


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Both, linked, for the time of the context."""
    with ExitStack() as stack:
        unshare = ["unshare", "-n" if os.geteuid() == 0 else "-rn"]
        source = stack.enter_context(_held(unshare))
        destination = stack.enter_context(_held(source.command("unshare", "-n")))
        source.must(
            *("ip", "link", "add", "name", "src0", "type", "veth"),
            *("peer", "name", "dst0", "netns", str(destination.pid)),
        )
        _set_up(source, "src0", f"{SOURCE_ADDRESS}/30", "fd71::1/64")
        _set_up(destination, "dst0", f"{DESTINATION_ADDRESS}/30", f"{DESTINATION_ADDRESS_V6}/64")
        yield Hosts(source, destination)


def _set_up(host: Host, link: str, address: str, address_v6: str) -> None:
    host.must("ip", "address", "add", address, "dev", link)
    host.must("ip", "address", "add", address_v6, "dev", link, "nodad")
    for each in ("lo", link):
        host.must("ip", "link", "set", each, "up")


@contextmanager
def _held(enter: list[str]) -> Iterator[Host]:
    """A namespace made by this command, until the end of the context."""
    command = [*enter, "setpriv", "--pdeathsig", "KILL", "sh", "-c", "echo $$; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            line = holder.stdout.readline()
            assert line, f"{' '.join(enter)}: it ended at once"
            yield Host(int(line))
        finally:
            holder.kill()
