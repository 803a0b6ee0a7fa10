"""Memory that several sides see, and stores of one of them that are still on their way to it.

Loads and stores of the relay's thread come here one by one, and before and after each the others
are let run. Its stores wait in a *store buffer*, as a processor has one, which only its own loads
look into. On x86-64 they leave in their order; where the processor may reorder them (arm64) in any,
but those to one place in their order. A fence waits until all have left.
"""

from collections.abc import Callable
from random import Random


class StoreBuffer:
    """The stores of one thread that the others do not see yet."""

    def __init__(self, random: Random, others: Callable[[], None], *, in_order: bool) -> None:
        """
        Args:
            random: which leave when.
            others: lets the other sides run.
            in_order: stores leave as they came.
        """
        self.others = others
        self._random = random
        self._in_order = in_order
        self._stores: list[tuple[memoryview, int, int]] = []

    def load(self, view: memoryview, at: int) -> int:
        """What the thread itself sees."""
        self.others()
        for there, place, value in reversed(self._stores):
            if there is view and place == at:
                return value
        return int(view[at])

    def store(self, view: memoryview, at: int, value: int) -> None:
        """Stores, at some time."""
        self.others()
        self._stores.append((view, at, value))
        self.others()

    def drain(self) -> bool:
        """One store leaves, if there is any."""
        if not self._stores:
            return False
        at = 0 if self._in_order else self._random.randrange(len(self._stores))
        view, place, _ = self._stores[at]
        at = next(
            n for n, (there, on, _) in enumerate(self._stores) if there is view and on == place
        )
        view, place, value = self._stores.pop(at)
        view[place] = value
        return True

    def fence(self) -> None:
        """Waits until all have left."""
        self.others()
        while self.drain():
            self.others()

    def ordering_fence(self) -> None:
        """Keeps the order of stores, which takes something where it is not kept by itself."""
        if not self._in_order:
            self.fence()


class SeenWords:
    """16-bit words, as a relay takes them."""

    def __init__(self, words: memoryview, stores: StoreBuffer) -> None:
        self._words = words
        self._stores = stores

    def __getitem__(self, at: int, /) -> int:
        return self._stores.load(self._words, at % len(self._words))

    def __setitem__(self, at: int, word: int, /) -> None:
        self._stores.store(self._words, at % len(self._words), word)


class SeenContents:
    """Bytes, as a relay takes them; stored 16 bits at a time, where they are so many."""

    def __init__(self, words: memoryview, stores: StoreBuffer) -> None:
        self._words = words
        self._bytes = words.cast("B")
        self._stores = stores

    def __getitem__(self, at: slice, /) -> memoryview:
        self._stores.others()
        return self._bytes[at]

    def __setitem__(self, at: slice, contents: "memoryview | bytes", /) -> None:
        start, end, _ = at.indices(len(self._bytes))
        words = memoryview(contents).cast("B").cast("H")
        for n, word in enumerate(words):
            self._stores.store(self._words, start // 2 + n, word)
        assert end - start == 2 * len(words)


class SeenLog:
    """A dirty log, a bit a page, of which the front end takes bits away at any time."""

    def __init__(self, first_page: int, pages: int, stores: StoreBuffer) -> None:
        self.first_page = first_page
        self.bits = memoryview(bytearray(-(-pages // 8)))
        self._stores = stores

    def mark(self, address: int, length: int) -> None:
        """As a relay marks."""
        if length:
            for page in range(address >> 12, (address + length - 1 >> 12) + 1):
                self.mark_page(page - self.first_page)

    def mark_pages(self, pages: "object") -> None:
        """As a relay marks many."""
        for page in pages:  # type: ignore[attr-defined]
            self.mark_page(int(page) - self.first_page)

    def mark_page(self, page: int) -> None:
        """Loads a byte, and stores it with a bit more."""
        bits = self._stores.load(self.bits, page >> 3)
        self._stores.store(self.bits, page >> 3, bits | 1 << (page & 7))

    def take(self, at: int) -> list[int]:
        """The front end's: fetches a byte and clears it at once; the pages."""
        bits, self.bits[at] = self.bits[at], 0
        return [8 * at + bit for bit in range(8) if bits >> bit & 1]
