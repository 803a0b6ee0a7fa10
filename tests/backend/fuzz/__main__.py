"""As many sessions of hostile guests as one likes: `python -m tests.backend.fuzz --sessions 9999`.

It ends with the first that does what no session may, and says its number: `--first NUMBER
--sessions 1` holds that one again, though a device on another thread need not come by the same way.
"""

import asyncio

from tests.backend.fuzz.fuzzer import RingFuzzer
from tests.support.sessions import chosen_sessions

_TOLD_EVERY = 5000


async def _hold(seed: int, numbers: range) -> None:
    async with RingFuzzer.begin(seed) as fuzzer:
        for number in numbers:
            await fuzzer.hold(number)
            if (number + 1) % _TOLD_EVERY == 0:
                print(f"{number + 1} sessions, {fuzzer.broken} broken", flush=True)
        print(f"{len(numbers)} sessions of seed {seed}, {fuzzer.broken} broken")


if __name__ == "__main__":
    asyncio.run(_hold(*chosen_sessions("tests.backend.fuzz")))
