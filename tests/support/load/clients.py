"""A process of clients: `python -m tests.support.load.clients SOCKET FIRST COUNT [--ending]`.

Each line that it is given is a number of requests, which its clients answer for together, and what
came of them is a line of JSON. With --ending the daemon may be stopped meanwhile.
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.load.client import Client, DaemonGone
from tests.support.load.stories import Story, stories
from tests.support.load.tally import Tally


async def tell(client: Client, told: Iterator[Story], requests: int) -> None:
    """One story after the other, until so many requests were answered."""
    try:
        while client.tally.requests < requests:
            await next(told)(client)
    except DaemonGone:
        pass
    except (TimeoutError, OSError) as error:
        client.tally.lose(f"client {client.number}: {error!r}")


async def run(clients: dict[Client, Iterator[Story]], requests: int) -> Tally:
    """All of them at once, and what came."""
    share = -(-requests // len(clients))
    await asyncio.gather(*(tell(client, told, share) for client, told in clients.items()))
    whole = Tally()
    for client in clients:
        whole.add(client.tally)
        client.tally = Tally()
    return whole


def main() -> None:
    """Serves lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--ending", action="store_true")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.count)
    chance = random.Random(given.first)
    each = (Client(given.socket, number, ending=given.ending) for number in numbers)
    clients = {client: stories(client, chance) for client in each}
    for line in sys.stdin:
        tally = asyncio.run(run(clients, int(line)))
        remembered = [end for client in clients for end in client.remembered]
        print(json.dumps([tally.to_json(), remembered]), flush=True)
    for client in clients:
        client.close()


if __name__ == "__main__":
    main()
