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
from contextlib import ExitStack

from vdpad.errors import VdpadError
from vdpad.virtio.rings import Region, RingGeometry, align_up

_PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)


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


def map_ring(memory: int, geometry: RingGeometry, undo: ExitStack) -> dict[str, memoryview]:
    """Views of the ring's parts, by their names, over mappings of the pages that they lie on.

    Raises:
        BadLend: the memfd is too short, or its pages are not there or not to be had.
    """
    there = os.fstat(memory).st_size
    if there < geometry.memory.size:
        raise BadLend(
            f"expected a memfd of at least {geometry.memory.size} bytes (memory.size), got {there}"
        )
    base = geometry.memory.iova
    parts = {name: Region(part.iova - base, part.size) for name, part in geometry.parts().items()}
    views: dict[str, memoryview] = {}
    for stretch in _stretches(parts.values(), there):
        view = _mapped(memory, stretch, undo)
        for name, part in parts.items():
            if stretch.iova <= part.iova < stretch.end:
                at = part.iova - stretch.iova
                views[name] = view[at : at + part.size]
                undo.callback(views[name].release)
    return views


def _stretches(parts: Iterable[Region], there: int) -> Iterator[Region]:
    """The whole pages that the parts lie on, those that touch as one, in bytes of the memfd.

    Args:
        parts: in bytes of the memfd.
        there: how many bytes it has, which may end within a page.
    """
    ordered = sorted(
        (part.iova // _PAGE * _PAGE, min(align_up(part.end, _PAGE), there)) for part in parts
    )
    begin, end = ordered[0]
    for first, last in ordered[1:]:
        if first > end:
            yield Region(begin, end - begin)
            begin, end = first, last
        end = max(end, last)
    yield Region(begin, end - begin)


def _mapped(memory: int, stretch: Region, undo: ExitStack) -> memoryview:
    try:
        mapping = mmap.mmap(
            memory,
            stretch.size,
            mmap.MAP_SHARED,
            mmap.PROT_READ | mmap.PROT_WRITE,
            offset=stretch.iova,
        )
    except (OSError, ValueError) as error:
        name = errno.errorcode.get(getattr(error, "errno", None) or 0, str(error))
        raise BadLend(f"the memfd cannot be mapped for writing: {name}") from error
    undo.callback(mapping.close)
    _check_presence(mapping, stretch.iova)
    view = memoryview(mapping)
    undo.callback(view.release)
    return view


def _check_presence(mapping: mmap.mmap, offset: int) -> None:
    """Refuses pages that are not there: who touches one first is charged for it.

    Asked of the mapping, since looking for holes in the file (SEEK_HOLE) takes its lock, which a
    lender can hold for as long as it likes, and walks over all of a large one.

    Args:
        mapping: of the memfd.
        offset: where in it that begins, in bytes.
    """
    present = (ctypes.c_ubyte * (align_up(len(mapping), _PAGE) // _PAGE))()
    first = ctypes.c_char.from_buffer(mapping)
    try:
        failed = _libc.mincore(ctypes.byref(first), ctypes.c_size_t(len(mapping)), present)
    finally:
        del first  # or the mapping could not be closed
    if failed:
        name = errno.errorcode.get(ctypes.get_errno(), "?")
        raise BadLend(f"the memfd does not tell which of its pages are there: {name}")
    for page, bits in enumerate(present):
        if not bits & 1:
            at = offset + page * _PAGE
            raise BadLend(
                f"expected the ring and its buffers in the memfd, got a hole at offset {at:#x} "
                f"(memory.iova + {at:#x}); write to each page once before you lend it"
            )
