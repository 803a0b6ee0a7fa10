"""As many sessions of hostile guests as one likes: `python -m tests.backend.fuzz --sessions 9999`.

It ends with the first that does what no session may, and says its number: `--first NUMBER
--sessions 1` holds that one again, though a device on another thread need not come by the same way.
"""

import argparse
import asyncio

from tests.backend.fuzz.fuzzer import RingFuzzer

_TOLD_EVERY = 5000


async def _hold(seed: int, numbers: range) -> None:
    async with RingFuzzer.begin(seed) as fuzzer:
        for number in numbers:
            await fuzzer.hold(number)
            if (number + 1) % _TOLD_EVERY == 0:
                print(f"{number + 1} sessions, {fuzzer.broken} broken", flush=True)
        print(f"{len(numbers)} sessions of seed {seed}, {fuzzer.broken} broken")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.backend.fuzz")
    parser.add_argument("--sessions", type=int, default=3000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other sessions")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.sessions)
    asyncio.run(_hold(arguments.seed, numbers))


if __name__ == "__main__":
    _main()
