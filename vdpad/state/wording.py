"""Values of a state as people read them: short, and never cut in silence."""

from collections.abc import Iterable, Sequence

# So many entries of a list are told; then how many more there are.
_MOST = 8
_MAX_RANGES = 24


def some(entries: Sequence[str], most: int = _MOST) -> str:
    """The first entries, and how many more there are."""
    more = len(entries) - most
    told = ", ".join(entries[:most])
    return f"{told} and {more} more" if more > 0 else told


def ranges(runs: Iterable[int | Sequence[int]]) -> str:
    """Numbers and [first, last] ranges of them: "1, 5, 100-200"."""
    told = [str(run) if isinstance(run, int) else f"{run[0]}-{run[-1]}" for run in runs]
    return some(told, _MAX_RANGES)


def count(number: int, one: str, many: str = "") -> str:
    """ "1 entry", "2 entries"."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
