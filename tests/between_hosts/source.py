"""The source host: many clients that restore, and one foe. Prints what came of it as JSON.

`python -m tests.between_hosts.source HOST PORT FOE_HOST FOE_PORT KEY_FILE RESTORES CLIENTS`
"""

import asyncio
import json
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from vdpad.remote import RemoteClient
from vdpad.wire.keys import load_keys

VLANS_PER_RESTORE = 4


def vids(number: int, restores: int) -> list[int]:
    """The VLANs of a restore, which no other restore has."""
    return [1 + number + restores * part for part in range(VLANS_PER_RESTORE)]


async def restore(client: RemoteClient, number: int, restores: int, device: str) -> dict[str, Any]:
    """One migration: every other one in two steps."""
    name = f"vm-{number}"
    features = ["CTRL_VQ", "CTRL_VLAN"]
    state = {"version": 1, "features": features, "vlans": vids(number, restores)}
    target = {"kind": "software", "name": device}
    if number % 2:
        return await client.restore(name, state, target)
    await client.prepare(name, state, target)
    return await client.commit(name)


async def some(
    client: RemoteClient, worker: int, clients: int, restores: int
) -> list[tuple[float, dict[str, Any]]]:
    """What a client asks for, one after the other, on a device of its own."""
    done = []
    async with client:
        for number in range(worker, restores, clients):
            began = time.monotonic()
            report = await restore(client, number, restores, f"sim{worker}")
            done.append((time.monotonic() - began, report))
    return done


async def annoy(address: tuple[str, int], key: bytes) -> None:
    """Sends what nobody should, until it is cancelled."""
    chance = random.Random(1)
    other = Fernet(Fernet.generate_key())
    ours = Fernet(key)
    info = b'{"jsonrpc":"2.0","id":1,"method":"info"}'
    cancel = b'{"jsonrpc":"2.0","id":1,"method":"cancel","params":{"migration":"vm-%d"}}'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foe:
        foe.setblocking(False)
        foe.connect(address)
        while True:
            asked = cancel % chance.randrange(1000)
            old = ours.encrypt_at_time(asked, int(time.time()) - 3600)
            whole = ours.encrypt(asked)
            cut = whole[: chance.randrange(12, len(whole) - 1)]
            junk = (info, b"", chance.randbytes(400), b"x" * 65507)
            for each in (*junk, other.encrypt(asked), old, cut):
                foe.send(each)
            await asyncio.sleep(0.02)


async def main(arguments: list[str]) -> dict[str, Any]:
    """All of it."""
    host, port, foe_host, foe_port, key_file, restores, clients = arguments
    keys = load_keys(Path(key_file))
    foe = asyncio.create_task(annoy((foe_host, int(foe_port)), keys[0]))
    began = time.monotonic()
    asking = [
        some(RemoteClient(host, keys, int(port), 60.0), worker, int(clients), int(restores))
        for worker in range(int(clients))
    ]
    done = [each for one in await asyncio.gather(*asking) for each in one]
    seconds = time.monotonic() - began
    foe.cancel()
    took = sorted(each for each, _ in done)
    return {
        "seconds": seconds,
        "p50": took[len(took) // 2],
        "p99": took[len(took) * 99 // 100],
        "reports": [report for _, report in done],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1:]))))
