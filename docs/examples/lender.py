"""A lender: how a VMM has vdpad restore a device that the VMM owns. Standard library only.

    python docs/examples/lender.py /run/vdpad/vdpad.sock docs/examples/state.json

`main` is what a VMM does, and all that it needs. `Device` stands in for its vDPA device: it acks
whatever it is sent, and prints it. In a VMM the memory is a memfd that is mapped for the device
(VHOST_IOTLB), and the two eventfds are those given to it by VHOST_SET_VRING_KICK and _CALL.
"""

import fcntl
import json
import mmap
import os
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

# Where the device sees the memory, and where in it the parts of the ring lie (virtio 1.4, 2.7).
IOVA = 0x100000
SIZE = 64
MEMORY = 0x10000
DESCRIPTORS, AVAILABLE, USED, BUFFERS = 0x0000, 0x0400, 0x1000, 0x2000
RING_EVENT_IDX = "RING_EVENT_IDX"


def target(features: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """What `prepare` and `check` are told of the device: all addresses are the device's."""
    return {
        "kind": "lent",
        "features": features,
        "config": config,
        "ring": {
            "size": SIZE,
            "memory": {"iova": IOVA, "size": MEMORY},
            "descriptors": IOVA + DESCRIPTORS,
            "available": IOVA + AVAILABLE,
            "used": IOVA + USED,
            "buffers": {"iova": IOVA + BUFFERS, "size": MEMORY - BUFFERS},
        },
    }


def ask(path: str, method: str, params: dict[str, Any], fds: tuple[int, ...] = ()) -> Any:
    """One request, with descriptors where the ring is lent, and its reply."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.bind("")  # without an address there is no reply
        connection.connect(path)
        connection.settimeout(30)
        socket.send_fds(connection, [json.dumps(request).encode()], fds)
        reply = json.loads(connection.recv(1 << 20))
    if "error" in reply:
        raise SystemExit(f"{method}: {reply['error']['message']}\n{json.dumps(reply, indent=2)}")
    return reply["result"]


def main(path: str, state_file: str) -> None:
    """Prepares a state while the guest still runs on the source, then lends and commits."""
    state = json.loads(Path(state_file).read_text())
    features = [name for name in state["features"] if name != RING_EVENT_IDX]
    config = {
        "max_virtqueue_pairs": 4,
        "rss_max_key_size": 40,
        "rss_max_indirection_table_length": 128,
        "supported_hash_types": ["IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6"],
    }
    migration = f"lender-{os.getpid()}"

    # While the guest runs: everything that can be done without the device.
    prepared = ask(
        path,
        "prepare",
        {"migration": migration, "state": state, "target": target(features, config)},
    )
    print(f"prepared: {prepared['commands']} commands in {prepared['prepare_us']} µs")

    # The guest is stopped, the device is at DRIVER_OK with its CVQ enabled: lend the ring.
    memory = os.memfd_create("cvq", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(memory, bytes(MEMORY), 0)  # so that its pages are there
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    kick = os.eventfd(0, os.EFD_CLOEXEC)  # blocking, for the thread below
    call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    device = Device(memory, kick, call)
    device.start()
    report = ask(path, "commit", {"migration": migration}, (memory, kick, call))

    # The ring is ours again, and goes on at the indices that the report names.
    print(f"{report['outcome']}: {report['applied']} of {report['commands']} commands applied")
    print(f"the ring goes on at {report['ring']}, the guest can run")
    device.stop()


class Device(threading.Thread):
    """Stands in for the vDPA device: takes commands off the ring, prints them and acks them."""

    def __init__(self, memory: int, kick: int, call: int) -> None:
        super().__init__(daemon=True)
        self._ram = mmap.mmap(memory, MEMORY)
        self._kick, self._call = kick, call
        self._next = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Serves until it is stopped."""
        while not self._ended.is_set():
            os.eventfd_read(self._kick)
            self._serve()

    def stop(self) -> None:
        """Wakes the thread for the last time."""
        self._ended.set()
        os.eventfd_write(self._kick, 1)
        self.join()

    def _serve(self) -> None:
        while self._next != self._word(AVAILABLE + 2):
            head = self._word(AVAILABLE + 4 + 2 * (self._next % SIZE))
            address, length, _, ack = struct.unpack_from(
                "<QIHH", self._ram, DESCRIPTORS + 16 * head
            )
            command = self._ram[address - IOVA : address - IOVA + length]
            print(f"  class {command[0]} command {command[1]}: {command[2:].hex()[:60]}")
            (ack_address,) = struct.unpack_from("<Q", self._ram, DESCRIPTORS + 16 * ack)
            self._ram[ack_address - IOVA] = 0
            struct.pack_into("<II", self._ram, USED + 4 + 8 * (self._next % SIZE), head, 1)
            self._next = (self._next + 1) & 0xFFFF
            memoryview(self._ram).cast("H")[(USED + 2) // 2] = self._next
        if not self._word(AVAILABLE) & 1:  # the driver does not mind an interrupt
            os.eventfd_write(self._call, 1)

    def _word(self, at: int) -> int:
        return memoryview(self._ram).cast("H")[at // 2]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
