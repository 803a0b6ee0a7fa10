# Network namespaces of our own
#
# Each is held by a process that waits for the end of its standard input; `nsenter` starts others in
# it. Without root it has a user namespace too, so that its links may be set up. All of it goes when
# the holder goes.
"""Network namespaces for tests, and in them TAP interfaces, alone or joined by a bridge."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.waiting import GUARD, wait_until

UNSHARE = ("unshare", "-n" if os.geteuid() == 0 else "-rn")
"""What makes a namespace."""


@dataclass(frozen=True)
class Namespace:
    """A network namespace, by the process that holds it."""

    pid: int

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs something in it."""
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        return ["nsenter", "-t", str(self.pid), *user, "-n", "--", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a command in it came to."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=GUARD, check=False
        )

    def must(self, *arguments: str) -> None:
        """Runs a command that has to do its work."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)


@contextmanager
def namespace(*enter: str) -> Iterator[Namespace]:
    """One made by this command, until the end of the context."""
    command = [
        *(enter or UNSHARE),
        "setpriv",
        "--pdeathsig",
        "KILL",
        "sh",
        "-c",
        "echo $$; exec cat",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            line = holder.stdout.readline()
            assert line, f"{' '.join(enter)}: it ended at once"
            yield Namespace(int(line))
        finally:
            holder.kill()


@functools.cache
def why_no_taps() -> str | None:
    """Say what keeps this machine from having TAP interfaces in a namespace, or None."""
    for program in ("unshare", "nsenter", "setpriv", "ip"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        with taps("tap0"):
            return None
    except (OSError, AssertionError, subprocess.SubprocessError) as error:
        return f"no TAP interface in a network namespace: {error}"


@contextmanager
def taps(*names: str, multi_queue: bool = False) -> Iterator[Namespace]:
    """A namespace with these TAP interfaces, which are up and say nothing of their own."""
    with namespace() as made:
        made.must("ip", "link", "set", "lo", "up")
        for name in names:
            more = ("multi_queue",) if multi_queue else ()
            made.must("ip", "tuntap", "add", "dev", name, "mode", "tap", *more)
            _set_up(made, name)
        yield made


@contextmanager
def bridged_taps(*names: str) -> Iterator[Namespace]:
    """The same, and all of them are ports of one bridge, br0: what one sends all others receive."""
    with taps(*names) as made:
        made.must("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        for name in names:
            made.must("ip", "link", "set", name, "master", "br0")
        _set_up(made, "br0")
        yield made


def wait_until_up(within: Namespace, *names: str) -> None:
    """Returns once these interfaces take frames, and their bridge does where they are its ports.

    The kernel sees to that some time after somebody has attached to them.
    """
    wait_until(lambda: all(_is_up(within, name) for name in names), every=0.02)


def _is_up(within: Namespace, name: str) -> bool:
    told = within.run("ip", "-details", "-oneline", "link", "show", name).stdout
    return " state UP " in told and ("bridge_slave" not in told or " state forwarding " in told)


def _set_up(made: Namespace, name: str) -> None:
    # Nothing but what tests send.
    made.must("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    made.must("ip", "link", "set", name, "up")
