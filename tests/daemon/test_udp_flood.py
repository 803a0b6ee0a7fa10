"""Datagrams without a key, as many as can be sent, beside those who are honest.

How long the longest pause was is told (`longest_ms` of the record, and in the output) and not
judged. docs/security.md says what remains.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.daemon.udp_support import KEY, OTHER_KEY, Remote, key_file, known_for_long
from tests.support.daemon import Daemon, running
from tests.support.honest import Honest
from tests.support.marks import in_bulk
from tests.support.waiting import GUARD, until

_REPLIES, _IN_BULK = 60, 200
_ASKS_AGAIN = 0.2

# By their lengths: what costs most to be refused, and what comes most often.
KINDS = {
    "wrong-key": Fernet(OTHER_KEY).encrypt(bytes(48_000)),
    "cut": Fernet(KEY).encrypt(bytes(100))[:-4],
    "foreign": os.urandom(1200),
    "empty": b"",
}


async def udp_address(daemon: Daemon) -> tuple[str, int]:
    """Where it listens for other hosts, once it does."""
    await until(lambda: len(daemon.events("listening")) == 2)
    sockets = [event["socket"] for event in daemon.events("listening")]
    (where,) = [each.split() for each in sockets if each.startswith("udp ")]
    return where[1], int(where[3])


@contextmanager
def flood(address: tuple[str, int], datagram: bytes) -> Iterator[None]:
    """Sends it again and again, on a thread, until the context ends."""
    ends = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            while not ends.is_set():
                with contextlib.suppress(OSError):
                    sender.send(datagram)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        ends.set()
        sending.join()


async def answered(remote: Remote) -> int:
    """How often another host has to ask until it is answered."""
    async with asyncio.timeout(GUARD):
        for times in range(1, 10_000):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASKS_AGAIN):
                    remote.send(b'{"jsonrpc": "2.0", "id": 1, "method": "info"}')
                    assert (await remote.receive())["result"]["name"] == "vdpad"
                    return times
    raise AssertionError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replies", [_REPLIES, *in_bulk([_IN_BULK])])
async def test_who_is_honest_is_answered_in_a_flood(
    tmp_path: Path, kind: str, replies: int, record_property: Callable[[str, object], None]
) -> None:
    records = {"directory": known_for_long(tmp_path / "records")}
    udp = {"listen": "127.0.0.1:0", "key_file": key_file(tmp_path)}
    async with running(tmp_path, records=records, udp=udp) as daemon:
        honest = Honest(daemon.socket)
        address = await udp_address(daemon)
        with Remote(address) as remote:
            await answered(remote)
            with flood(address, KINDS[kind]):
                honest.start()
                try:
                    await honest.is_answered(replies)
                    times = await answered(remote)
                finally:
                    await asyncio.to_thread(honest.end)
            record_property("longest_ms", round(1000 * honest.longest, 1))
            print(f"{kind}: the longest in {honest.longest:.4f} s, asked {times} times")
            assert not honest.gave_up
            await answered(remote)
        assert daemon.process.poll() is None
