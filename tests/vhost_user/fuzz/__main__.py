"""As many mutated sessions as one likes: `python -m tests.vhost_user.fuzz --sessions 100000`.

It ends with the first that does what no session may, and says its number: `--first NUMBER
--sessions 1` holds that one again.
"""

import asyncio

from tests.support.sessions import chosen_sessions
from tests.vhost_user.fuzz.fuzzer import Fuzzer

_TOLD_EVERY = 5000


async def _hold(seed: int, numbers: range) -> None:
    fuzzer = await Fuzzer.record(seed)
    for number in numbers:
        await fuzzer.hold(number)
        if (number + 1) % _TOLD_EVERY == 0:
            print(f"{number + 1} sessions of seed {seed}", flush=True)


if __name__ == "__main__":
    asyncio.run(_hold(*chosen_sessions("tests.vhost_user.fuzz")))
