"""A control queue that its owner lends: a memfd with the ring, a kick and a call eventfd.

The lender keeps the device and its descriptors; we get our own. Nothing of what came is trusted:

- what each descriptor is, is asked by what cannot sleep, before anything else is done with it: a
  file on FUSE answers fstat when its server pleases;
- the memfd must be sealed against shrinking, and of ordinary pages, else cutting it or taking a
  huge page away would kill us with SIGBUS;
- only the pages of the ring and of the buffers that are used are mapped, so that a large memory
  takes no address space; and they must be there, so that they are charged to the lender and not to
  us;
- the geometry was checked against the memory it names, and that against the memfd's size;
- the descriptors must be eventfds, so that a kick cannot turn into a write to something else;
- the ring must be idle, and where the lender said at which index, it must stand there.

What happens to the memory's contents while we work is the ring's concern.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from vdpad.errors import VdpadError
from vdpad.queues.control_queue import Lent
from vdpad.queues.eventfds import EventfdSender, Waiter, check_eventfd, kicks_that_do_not_block
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.split_ring import Region, RingGeometry, align_up
from vdpad.wire.descriptors import CLOSER

_PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)

# Whose descriptors ours were made from is not known here; those that we keep close quickly.
_NOBODY = -1


class BadLend(VdpadError):
    """Descriptors or a ring that cannot be used as they were lent."""


@dataclass(frozen=True, slots=True)
class LentDescriptors:
    """What a lender sends, in the order in which it is sent."""

    memory: int
    kick: int
    call: int

    @classmethod
    def from_list(cls, fds: list[int]) -> "LentDescriptors":
        """The three in their order.

        Raises:
            BadLend: there are not three.
        """
        if len(fds) != 3:
            raise BadLend(
                f"expected three descriptors (memory, kick, call), got {len(fds)}; "
                "send them with the request (SCM_RIGHTS)"
            )
        return cls(*fds)

    def check(self) -> Lent:
        """Refuses what is no sealed memfd of ordinary pages and two eventfds. Does not sleep.

        Raises:
            BadLend: by the name of what is wrong.
        """
        _check_memfd(self.memory)
        try:
            kick = check_eventfd(self.kick, "kick")
            call = check_eventfd(self.call, "call")
        except VdpadError as error:
            raise BadLend(str(error)) from error
        status = os.fstat(self.memory)
        return Lent(status.st_dev, status.st_ino, kick, call)

    def duplicate(self) -> "LentDescriptors":
        """The same again, for somebody else to close.

        Raises:
            BadLend: this process has no descriptors left.
        """
        copies: list[int] = []
        try:
            for fd in (self.memory, self.kick, self.call):
                copies.append(os.dup(fd))
        except OSError as error:
            for fd in copies:
                os.close(fd)
            raise BadLend(f"the descriptors cannot be kept: {error.strerror}") from error
        return LentDescriptors(*copies)

    def close(self) -> None:
        """Has all three closed, where nobody waits: memory goes with its last copy, in its time."""
        CLOSER.close(_NOBODY, (self.memory, self.kick, self.call))


@dataclass(frozen=True, slots=True)
class Indices:
    """Where the lender says that its ring stands; None where it does not say."""

    next_available: int | None = None
    next_used: int | None = None


class LentQueue:
    """A lent CVQ; implements ControlQueue."""

    def __init__(
        self,
        geometry: RingGeometry,
        descriptors: LentDescriptors,
        indices: Indices,
        *,
        event_idx: bool,
        worth_polling: bool = True,
    ) -> None:
        """Takes over the descriptors, also where it raises.

        Args:
            geometry: a checked one.
            descriptors: closed by `close`.
            indices: what the lender says of the ring.
            event_idx: RING_EVENT_IDX was negotiated.
            worth_polling: the device works on another thread than ours.

        Raises:
            BadLend: what came cannot be used. Nothing has been written anywhere.
        """
        self._worth_polling = worth_polling
        self._undo = ExitStack()
        self._undo.callback(descriptors.close)
        try:
            self._lent = descriptors.check()
            self._call = Waiter(descriptors.call)
            self._undo.callback(self._call.close)
            self._kick = EventfdSender(descriptors.kick)
            self._undo.enter_context(kicks_that_do_not_block())
            views = _map(descriptors.memory, geometry, self._undo)
            self._ring: DriverRing | None = DriverRing.over(
                views, geometry.size, event_idx=event_idx
            )
            self._undo.callback(self._ring.release)
            self._next_index = _idle_index(self._ring, indices)
        except BaseException:
            self._undo.close()
            raise

    @property
    def ring(self) -> DriverRing:
        """The driver's side of the ring."""
        if self._ring is None:
            raise BadLend("the queue is closed; lend it again")
        return self._ring

    @property
    def next_index(self) -> int:
        """Both indices of the ring as it was lent."""
        return self._next_index

    @property
    def lent(self) -> Lent:
        """What it was lent as."""
        return self._lent

    @property
    def worth_polling(self) -> bool:
        """Whether the device works while we look."""
        return self._worth_polling

    def kick(self) -> None:
        """Rings the doorbell."""
        self._kick()

    async def called(self, seconds: float) -> None:
        """Returns when the device has interrupted, or after so many seconds."""
        await self._call.wait(seconds)

    def close(self) -> None:
        """Unmaps the memory and has the descriptors closed. May be called again."""
        self._ring = None
        self._undo.close()


def memory_identity(descriptors: LentDescriptors) -> tuple[int, int]:
    """What tells one memfd from another, however often it was duplicated.

    Raises:
        BadLend: it is none.
    """
    _seals(descriptors.memory)
    status = os.fstat(descriptors.memory)
    return status.st_dev, status.st_ino


def _seals(memory: int) -> int:
    """A memfd's seals; nothing else has any, and asking for them does not sleep."""
    try:
        return fcntl.fcntl(memory, fcntl.F_GET_SEALS)
    except OSError as error:
        raise BadLend(f"expected a memfd as the memory, got {error.strerror}") from error


def _check_memfd(memory: int) -> None:
    if not _seals(memory) & fcntl.F_SEAL_SHRINK:
        raise BadLend("expected the memfd sealed with F_SEAL_SHRINK, it is not; seal it")
    page = os.fstatvfs(memory).f_bsize
    if page != _PAGE:
        raise BadLend(
            f"expected a memfd of pages of {_PAGE} bytes, got one of {page} (MFD_HUGETLB), whose "
            "pages may be taken away; lend the ring in a small memfd of its own"
        )


# --- the ring's pages ---


def _map(memory: int, geometry: RingGeometry, undo: ExitStack) -> dict[str, memoryview]:
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


def _idle_index(ring: DriverRing, said: Indices) -> int:
    available = ring.available_index
    used = ring.used_index()
    if available != used:
        raise BadLend(
            f"expected an idle ring, got available index {available} and used index {used}; "
            "lend it when all its chains have been used"
        )
    for name, index in (("next_available", said.next_available), ("next_used", said.next_used)):
        if index is not None and index != available:
            raise BadLend(f"{name}: expected {available} as in the ring, got {index}")
    return available
