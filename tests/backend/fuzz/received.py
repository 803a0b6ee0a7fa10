"""What the device has written to a guest that keeps its receive queue as it should, by pages.

It is the ground that marks are judged by: pages of buffers that have come back, if they are not as
they were. A buffer alone does not say when it was written, and what was before a log was cleared
may have been marked before; nor does a page alone, as the guest writes too.
"""

from tests.support.guest import GuestQueue
from tests.support.split_driver import Extent

_SHIFT = 12


def pages_of(extents: list[Extent]) -> set[int]:
    """The numbers of all pages on which some bytes of these lie."""
    return {
        page
        for address, size in extents
        if size
        for page in range(address >> _SHIFT, (address + size - 1 >> _SHIFT) + 1)
    }


class Received:
    """From its making on."""

    def __init__(self, queue: GuestQueue) -> None:
        """Its driver writes to none of its buffers and tables from now on."""
        self._queue = queue
        self._before = self._contents()

    def pages(self) -> set[int]:
        """Those that the device has written to, and has told the guest of."""
        driver = self._queue.driver
        now = self._contents()
        changed = {page for page, data in now.items() if data != self._before[page]}
        returned = pages_of(
            [
                extent
                for request, length, _ in self._queue.collect()
                for extent in _filled(request.writable, length)
            ]
        )
        # To which the driver writes all the time, as to nothing else.
        published = pages_of([(driver.available, 6 + 2 * driver.size)])
        return (changed & returned) - published

    def _contents(self) -> dict[int, bytes]:
        page = 1 << _SHIFT
        return {
            region.start + at >> _SHIFT: region.mapping[at : at + page]
            for region in self._queue.regions
            for at in range(0, region.size, page)
        }


def _filled(buffers: list[Extent], length: int) -> list[Extent]:
    """What of a chain's buffers so many bytes have filled."""
    filled = []
    for address, size in buffers:
        filled.append((address, min(size, length)))
        length -= min(size, length)
    return filled
