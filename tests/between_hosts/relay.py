"""A bad network as a process: `python -m tests.between_hosts.relay PORT HOST HOST_PORT`.

Passes datagrams on, both ways, for any number of clients on this host: loses 20 %, delays the rest
so that many overtake others, sends some twice, and some again seconds later. Always the same luck.
At the end of its standard input it prints what it did, as JSON.
"""

import asyncio
import json
import random
import socket
import sys
from collections import Counter
from collections.abc import Callable

LOSS = 0.2
DUPLICATES = 0.1
LATE_DUPLICATES = 0.05


class Network:
    """What becomes of datagrams, and how often."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self._chance = random.Random(5)
        self._sent = 0
        self._last_passed = 0

    def carry(self, datagram: bytes, passed_on: Callable[[bytes], object]) -> None:
        """Loses it, or passes it on once or more often."""
        self.done["came"] += 1
        self._sent += 1
        if self._chance.random() < LOSS:
            self.done["lost"] += 1
            return
        self._after(self._chance.choice([0.0, 0.001, 0.005, 0.05]), datagram, passed_on)
        if self._chance.random() < DUPLICATES:
            self.done["twice"] += 1
            self._after(self._chance.uniform(0, 0.1), datagram, passed_on)
        if self._chance.random() < LATE_DUPLICATES:
            self.done["late"] += 1
            self._after(self._chance.uniform(0.5, 4), datagram, passed_on)

    def _after(self, seconds: float, datagram: bytes, passed_on: Callable[[bytes], object]) -> None:
        number = self._sent

        def go() -> None:
            self.done["overtaken"] += number < self._last_passed
            self._last_passed = max(number, self._last_passed)
            passed_on(datagram)

        asyncio.get_running_loop().call_later(seconds, go)


class Far(asyncio.DatagramProtocol):
    """The side of one client that the daemon sees."""

    def __init__(self, network: Network, answer: Callable[[bytes], object]) -> None:
        self._network = network
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._network.carry(data, self._answer)


async def relay(port: int, to: tuple[str, int]) -> Counter[str]:
    """Relays until the end of standard input."""
    loop = asyncio.get_running_loop()
    network = Network()
    far: dict[object, asyncio.DatagramTransport] = {}
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.setblocking(False)
    near.bind(("127.0.0.1", port))
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, lambda: None if sys.stdin.readline() else ended.set())
    print("ready", flush=True)

    async def side_of(address: tuple[str, int]) -> asyncio.DatagramTransport:
        side = Far(network, lambda reply: near.sendto(reply, address))
        transport, _ = await loop.create_datagram_endpoint(lambda: side, remote_addr=to)
        return transport

    async def clients() -> None:
        while True:
            data, address = await loop.sock_recvfrom(near, 65536)
            if address not in far:
                far[address] = await side_of(address)
            network.carry(data, far[address].sendto)

    serving = asyncio.create_task(clients())
    await ended.wait()
    serving.cancel()
    return network.done


if __name__ == "__main__":
    print(json.dumps(asyncio.run(relay(int(sys.argv[1]), (sys.argv[2], int(sys.argv[3]))))))
