"""The front end of the model, which copies pages, and a thread of ours that writes beside it."""

from collections.abc import Iterator

from tests.backend.relay.model.board import ACK_PAGE, USED_PAGE, Board, Wrong
from tests.backend.relay.model.memory import SeenLog

_COMPARED = 512
"""Of a page; the model writes to no byte behind it."""


class FrontEnd:
    """Copies all pages, and again what is marked, until the migration ends."""

    def __init__(self, board: Board, log: SeenLog) -> None:
        self._board = board
        self._log = log
        self.logging = False
        self._to_copy: set[int] = set()
        self._copied: dict[int, bytes] = {}

    def start(self) -> None:
        """Memory is logged from now on."""
        self.logging = True
        self._log.bits[:] = bytes(len(self._log.bits))
        self._to_copy = set(range(self._board.pages))
        self._copied = {}

    def step(self) -> bool:
        """Fetches a byte of the log, or copies a page; whether there was any."""
        if not self.logging:
            return False
        random = self._board.random
        if self._to_copy and random.random() < 0.6:
            page = random.choice((min(self._to_copy), *self._to_copy))
            self._to_copy.remove(page)
            self._copied[page] = self._contents(page)
            return True
        # The rings' pages stand in the first byte, and are what most is written to.
        found = self._log.take(random.choice((0, 0, random.randrange(len(self._log.bits)))))
        self._to_copy.update(found)
        return bool(found)

    def stop(self) -> None:
        """The migration's end: what is marked is copied, and all else must be as it was.

        Raises:
            Wrong: it is not.
        """
        self.logging = False
        for at in range(len(self._log.bits)):
            self._to_copy.update(self._log.take(at))
        for page in range(USED_PAGE, self._board.pages):
            if page not in self._to_copy and self._copied.get(page) != self._contents(page):
                raise Wrong(f"page {page} was written and not marked")

    def _contents(self, page: int) -> bytes:
        return bytes(self._board.page(page)[:_COMPARED])


class OtherThread:
    """Writes acks to a page of the guest's, and hands it over to whoever marks."""

    def __init__(self, board: Board, log: SeenLog) -> None:
        self._board = board
        self._log = log
        self._handed_over: list[int] = []
        self._is_between = True
        """It has written nothing that it has not handed over."""
        self._steps = self._write()

    def step(self, *, logging: bool) -> bool:
        """One access; whether there was any."""
        return logging and next(self._steps)

    def end(self) -> None:
        """Ends the ack that it is at."""
        while not self._is_between:
            next(self._steps)

    def take_over(self) -> None:
        """Marks what it has handed over, on the thread that marks."""
        while self._handed_over:
            self._log.mark_page(self._handed_over.pop())

    def _write(self) -> Iterator[bool]:
        page = self._board.page(ACK_PAGE)
        bits, at, bit = self._log.bits, ACK_PAGE >> 3, 1 << (ACK_PAGE & 7)
        while True:
            self._is_between = False
            page[0] = (page[0] + 1) & 0xFF
            yield True
            if self._board.ways.two_threads_mark:
                before = bits[at]
                yield True
                bits[at] = before | bit
            else:
                self._handed_over.append(ACK_PAGE)
            self._is_between = True
            yield True
