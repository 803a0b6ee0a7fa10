"""Which sessions a fuzzer holds, by its command line."""

import argparse
from typing import NamedTuple


class Chosen(NamedTuple):
    """Sessions by number, and the seed that they come of."""

    seed: int
    numbers: range


def chosen_sessions(module: str) -> Chosen:
    """What the command line of `python -m module` says."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--sessions", type=int, default=3000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other sessions")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.sessions)
    return Chosen(arguments.seed, numbers)
