# Two network namespaces and a veth pair
#
# The second namespace is made in the first one's user namespace, where that has one of its own, so
# that a link may have an end in each.
"""Two hosts on this machine: start, run something on one, end."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.support.namespaces import Namespace, namespace

SOURCE_ADDRESS = "10.71.0.1"
DESTINATION_ADDRESS = "10.71.0.2"
DESTINATION_ADDRESS_V6 = "fd71::2"

# 20 % lost, the rest delayed so that many overtake others, some of them twice.
_NETEM = ("delay", "5ms", "5ms", "loss", "20%", "duplicate", "10%", "reorder", "25%", "50%")


@dataclass(frozen=True)
class Hosts:
    """The two, which reach each other at the addresses above."""

    source: Namespace
    destination: Namespace

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
        source = stack.enter_context(namespace())
        destination = stack.enter_context(namespace(*source.command("unshare", "-n")))
        source.must(
            *("ip", "link", "add", "name", "src0", "type", "veth"),
            *("peer", "name", "dst0", "netns", str(destination.pid)),
        )
        _set_up(source, "src0", f"{SOURCE_ADDRESS}/30", "fd71::1/64")
        _set_up(destination, "dst0", f"{DESTINATION_ADDRESS}/30", f"{DESTINATION_ADDRESS_V6}/64")
        yield Hosts(source, destination)


def _set_up(host: Namespace, link: str, address: str, address_v6: str) -> None:
    host.must("ip", "address", "add", address, "dev", link)
    host.must("ip", "address", "add", address_v6, "dev", link, "nodad")
    for each in ("lo", link):
        host.must("ip", "link", "set", each, "up")
