"""What a front end does in one session, as data: recorded, mutated, and played.

A script is recorded from a conversation that goes well (tests/vhost_user/conversations.py), so no
message is written down twice. Descriptors stand in it by their kind: each play makes its own.
"""

import fcntl
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from tests.vhost_user import conversations
from tests.vhost_user.conftest import Served, serving
from tests.vhost_user.front_end import HEADER, FrontEnd
from tests.vhost_user.recording_device import RecordingDevice


class Kind(Enum):
    """What a descriptor is of."""

    MEMORY = auto()
    """The front end's memory."""
    SHORT_MEMORY = auto()
    """A page, for a region that says more."""
    UNWRITABLE_MEMORY = auto()
    """Sealed against writing."""
    EVENTFD = auto()
    STATE = auto()
    """A pipe's end for reading, with bytes and an end."""
    SINK = auto()
    """A pipe's end for writing."""
    PIPE = auto()
    """A pipe's end for reading that has nothing and no end while the front end is there."""
    ITS_OWN_END = auto()
    """The same; the other end rides on the message too."""
    STREAM = auto()
    """A connection whose other end is silent."""
    ANSWERING_STREAM = auto()
    """One whose other end has answered already."""
    NOISY_STREAM = auto()
    CLOSED_STREAM = auto()
    DATAGRAMS = auto()
    NULL = auto()
    """/dev/null."""
    FOLDER = auto()


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    request: int
    flags: int
    payload: bytes = b""
    kinds: tuple[Kind, ...] = ()
    size: int | None = None
    """What the header says, where that is not the truth."""
    sent: int | None = None
    """How many bytes of it are sent, where not all are."""
    pause: int | None = None
    """After how many bytes the other side has time to read."""
    is_late: bool = False
    """Descriptors ride on what follows the pause."""

    def __str__(self) -> str:
        """What makes it another than its neighbours."""
        names = " ".join(kind.name for kind in self.kinds[:10])
        cut = f" size {self.size} sent {self.sent} pause {self.pause} late {self.is_late}"
        is_whole = (self.size, self.sent, self.pause) == (None, None, None)
        payload = self.payload[:48].hex()
        return f"{self.request} {self.flags:#x} {payload} {names}{'' if is_whole else cut}"

    @property
    def data(self) -> bytes:
        """What is sent."""
        size = len(self.payload) if self.size is None else self.size
        return (HEADER.pack(self.request, self.flags, size) + self.payload)[: self.sent]


@dataclass(frozen=True, slots=True)
class Shrink:
    """The memory's file is cut to so many bytes, or grows again."""

    size: int


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """The device says that its config space is another."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The other side has time to read."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """The connection is closed, whatever was not read."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The back end is told to end."""


Step = Message | Shrink | ConfigChanged | Wait | HangUp | Cancel


@dataclass(frozen=True, slots=True)
class Script:
    """A session, and the device that it is held with."""

    name: str
    queues: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """A line a step."""
        return "\n".join([f"{self.name}, {self.queues} queues", *map(str, self.steps)])


class _Recorder(FrontEnd):
    """A front end that takes down what it sends."""

    def __init__(self, served: FrontEnd) -> None:
        # Closed by whom it is taken from, memory and eventfds too.
        self.__dict__.update(served.__dict__)
        self.taken: list[Message] = []

    async def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        request, flags, _ = HEADER.unpack_from(data)
        kinds = tuple(map(self._kind, fds))
        self.taken.append(Message(request, flags, data[HEADER.size :], kinds))
        await super().send_bytes(data, fds)

    def _kind(self, fd: int) -> Kind:
        if fd == self.memory.fd:
            return Kind.MEMORY
        if fd in self.eventfds:
            return Kind.EVENTFD
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            return Kind.STREAM
        assert stat.S_ISFIFO(mode)
        writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        return Kind.SINK if writes else Kind.STATE


_KEEPING = conversations.qemu_that_keeps_the_control_queue
_CONVERSATIONS: dict[str, tuple[int, Callable[[Served], Awaitable[None]]]] = {
    "qemu-all-queues": (3, conversations.qemu_with_all_queues),
    "qemu-7.2": (5, partial(_KEEPING, version="7.2")),
    "qemu-10.0": (5, partial(_KEEPING, version="10.0")),
    "crosvm": (3, conversations.crosvm),
    "testpmd": (3, conversations.testpmd),
    "every-request": (3, conversations.every_request),
}


async def record() -> tuple[Script, ...]:
    """All that go well."""
    return tuple([await _record(name, *each) for name, each in _CONVERSATIONS.items()])


async def _record(
    name: str, queues: int, conversation: Callable[[Served], Awaitable[None]]
) -> Script:
    async with serving(RecordingDevice(queues=queues)) as served:
        served.front_end = recorder = _Recorder(served.front_end)
        await conversation(served)
    return Script(name, queues, tuple(recorder.taken))
