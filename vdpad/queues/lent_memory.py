"""The memory of a lent ring: what it must be, and views of the ring's parts in it.

A lender may do with its memory what it likes, at any time. So it must be a memfd that is sealed
against shrinking, and of ordinary pages, else cutting it or taking a huge page away would kill us
with SIGBUS. Only the pages of the ring and of the buffers that are used are mapped, so that a large
memory takes no address space; and they must be there, so that they are charged to the lender and
not to us.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator

from vdpad.errors import VdpadError
from vdpad.virtio.rings import RingGeometry, align_up

_PAGE = mmap.PAGESIZE

_mincore = ctypes.CDLL(None, use_errno=True).mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)

_Part = tuple[int, int, str]
"""Where a part of a ring begins and ends, in bytes of the memfd, and its name."""


class BadLend(VdpadError):
    """Descriptors or a ring that cannot be used as they were lent."""


def seals_of(memory: int) -> int:
    """A memfd's seals; nothing else has any, and asking for them does not sleep.

    Raises:
        BadLend: it is none.
    """
    try:
        return fcntl.fcntl(memory, fcntl.F_GET_SEALS)
    except OSError as error:
        raise BadLend(f"expected a memfd as the memory, got {error.strerror}") from error


def check_memfd(memory: int) -> None:
    """Refuses what is no sealed memfd of ordinary pages. Does not sleep.

    Raises:
        BadLend: it is none.
    """
    if not seals_of(memory) & fcntl.F_SEAL_SHRINK:
        raise BadLend("expected the memfd sealed with F_SEAL_SHRINK, it is not; seal it")
    page = os.fstatvfs(memory).f_bsize
    if page != _PAGE:
        raise BadLend(
            f"expected a memfd of pages of {_PAGE} bytes, got one of {page} (MFD_HUGETLB), whose "
            "pages may be taken away; lend the ring in a small memfd of its own"
        )


# --- the ring's pages ---


class RingMapping:
    """A ring's parts, over mappings of the pages that they lie on, until `close`."""

    def __init__(self, memory: int, geometry: RingGeometry) -> None:
        """
        Args:
            memory: a checked memfd; it stays the caller's.
            geometry: a checked one.

        Raises:
            BadLend: the memfd is too short, or its pages are not there or not to be had.
        """
        self.parts: dict[str, memoryview] = {}
        """By their names. They are released by `close`; what is made of them is not."""
        self._mappings: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        there = os.fstat(memory).st_size
        if there < geometry.memory.size:
            raise BadLend(
                f"expected a memfd of at least {geometry.memory.size} bytes (memory.size), "
                f"got {there}"
            )
        base = geometry.memory.iova
        parts = [
            (part.iova - base, part.end - base, name) for name, part in geometry.parts().items()
        ]
        try:
            for begin, end in _stretches(parts, there):
                self._map(memory, begin, end, parts)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the memory. May be called again."""
        for view in (*self.parts.values(), *self._views):
            view.release()
        for mapping in self._mappings:
            mapping.close()

    def _map(self, memory: int, begin: int, end: int, parts: Iterable[_Part]) -> None:
        mapping = _mapped(memory, begin, end)
        self._mappings.append(mapping)
        _check_presence(mapping, begin)
        view = memoryview(mapping)
        self._views.append(view)
        for first, last, name in parts:
            if begin <= first < end:
                self.parts[name] = view[first - begin : last - begin]


def _stretches(parts: Iterable[_Part], there: int) -> Iterator[tuple[int, int]]:
    """The whole pages that the parts lie on, those that touch as one: where each begins and ends.

    Args:
        parts: of the ring.
        there: how many bytes the memfd has, which may end within a page.
    """
    begin = end = -1
    for first, last, _ in sorted(parts):
        first = first // _PAGE * _PAGE
        if first > end:
            if end > begin:
                yield begin, end
            begin = first
        end = max(end, min(align_up(last, _PAGE), there))
    yield begin, end


def _mapped(memory: int, begin: int, end: int) -> mmap.mmap:
    try:
        return mmap.mmap(
            memory,
            end - begin,
            mmap.MAP_SHARED,
            mmap.PROT_READ | mmap.PROT_WRITE,
            offset=begin,
        )
    except (OSError, ValueError) as error:
        name = errno.errorcode.get(getattr(error, "errno", None) or 0, str(error))
        raise BadLend(f"the memfd cannot be mapped for writing: {name}") from error


def _check_presence(mapping: mmap.mmap, offset: int) -> None:
    """Refuses pages that are not there: who touches one first is charged for it.

    Asked of the mapping, since looking for holes in the file (SEEK_HOLE) takes its lock, which a
    lender can hold for as long as it likes, and walks over all of a large one.

    Args:
        mapping: of the memfd.
        offset: where in it that begins, in bytes.
    """
    present = ctypes.create_string_buffer(align_up(len(mapping), _PAGE) // _PAGE)
    first = ctypes.c_char.from_buffer(mapping)
    try:
        failed = _mincore(ctypes.addressof(first), len(mapping), present)
    finally:
        del first  # or the mapping could not be closed
    if failed:
        name = errno.errorcode.get(ctypes.get_errno(), "?")
        raise BadLend(f"the memfd does not tell which of its pages are there: {name}")
    for page, bits in enumerate(present.raw):
        if not bits & 1:
            at = offset + page * _PAGE
            raise BadLend(
                f"expected the ring and its buffers in the memfd, got a hole at offset {at:#x} "
                f"(memory.iova + {at:#x}); write to each page once before you lend it"
            )
