"""What any process of ours has to tell: its sockets, its requests, its files, its log."""

import logging
from dataclasses import dataclass

from vdpad.service.events.event import Event


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """Requests are taken from now on."""

    NAME = "listening"
    MESSAGE_ID = "c815989955f0427091ec365307f1af6f"
    socket: str
    version: str

    def sentence(self) -> str:
        return f"vdpad {self.version} listens on {self.socket}"


@dataclass(frozen=True, slots=True)
class SocketError(Event):
    """The kernel reported an error on the socket."""

    NAME = "socket-error"
    MESSAGE_ID = "04b8086c6f054c5a833aa7ea3119d3e4"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    reason: str

    def sentence(self) -> str:
        return f"error on the socket: {self.reason}"


@dataclass(frozen=True, slots=True)
class SocketLost(Event):
    """A socket for datagrams is read no more, for what no socket should come to."""

    NAME = "socket-lost"
    MESSAGE_ID = "dedca504e61a4de78e7cde1f7b8d47ce"
    LEVEL = logging.ERROR
    socket: str
    """Where it is bound."""
    reason: str

    def sentence(self) -> str:
        return f"nothing that is asked at {self.socket} is read any more: {self.reason}"


@dataclass(frozen=True, slots=True)
class ConnectionCut(Event):
    """A client's connection was ended, for what the client did or did not do on it."""

    NAME = "connection-cut"
    MESSAGE_ID = "d9d9750ede844732a4a41d654ac74a3d"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    pid: int
    """Of whoever connected, as of then."""
    user: int
    reason: str

    @property
    def by(self) -> int:
        return self.user

    def sentence(self) -> str:
        return f"the connection of process {self.pid} (uid {self.user}) was cut: {self.reason}"


@dataclass(frozen=True, slots=True)
class FileNotWritten(Event):
    """A file that the settings ask for could not be written."""

    NAME = "file-not-written"
    MESSAGE_ID = "8e87a01c1df843fda58823c81d4aef16"
    LEVEL = logging.WARNING
    path: str
    reason: str

    def sentence(self) -> str:
        return f"{self.path} was not written: {self.reason}"


@dataclass(frozen=True, slots=True)
class DatagramsRefused(Event):
    """Datagrams of other hosts were not let in."""

    NAME = "datagrams-refused"
    MESSAGE_ID = "ac571c3e614b42a8a58d0475c3f0e165"
    LEVEL = logging.WARNING
    datagrams: int
    """Since this was told last."""
    reasons: tuple[str, ...]
    """Each with its number."""
    last: str
    """What was wrong with the last one."""
    address: str
    """That it came from, if the network is to be believed."""

    def sentence(self) -> str:
        return (
            f"{self.datagrams} datagrams refused ({', '.join(self.reasons)}); the last from "
            f"{self.address}: {self.last}"
        )


@dataclass(frozen=True, slots=True)
class RepliesLost(Event):
    """Replies could not be sent; what was asked for was done or refused all the same."""

    NAME = "replies-lost"
    MESSAGE_ID = "f940f1671d4540d4a4f130ae37ebda58"
    LEVEL = logging.WARNING
    replies: int
    """Since this was told last."""
    reasons: tuple[str, ...]
    """Each with its number."""
    last: str
    """Why the last one could not be sent."""
    pid: int | None
    """Of whoever asked; None on another host."""
    address: str
    """Of whoever asked; "" where it is bound to none."""

    def sentence(self) -> str:
        asked = "another host" if self.pid is None else f"process {self.pid}"
        return (
            f"{self.replies} replies were lost ({', '.join(self.reasons)}); the last to {asked}, "
            f"{self.address or 'without an address'}: {self.last}"
        )


@dataclass(frozen=True, slots=True)
class EntriesLost(Event):
    """The journal did not take entries, and takes some again."""

    NAME = "entries-lost"
    MESSAGE_ID = "a0d1036bed0b4af99046161f5b4fd96e"
    LEVEL = logging.WARNING
    lost: int

    def sentence(self) -> str:
        return f"{self.lost} log entries before this were lost: the journal did not take them"


@dataclass(frozen=True, slots=True)
class DescriptorsStuck(Event):
    """What came with requests cannot be closed, and datagrams or its users' connections wait."""

    NAME = "descriptors-stuck"
    MESSAGE_ID = "b9948598ce184a469eaba95748ee6d30"
    LEVEL = logging.ERROR
    CLIENTS_CHOICE = True
    descriptors: int
    """How many."""
    users: tuple[str, ...]
    """Whose they are, most first: each uid with its number."""

    def sentence(self) -> str:
        return (
            f"{self.descriptors} descriptors that came with requests cannot be closed (by uid: "
            f"{', '.join(self.users)}); until they are, datagrams wait, or these users' "
            "connections. See what these users send: files of a server that does not answer, "
            "sockets that linger"
        )


@dataclass(frozen=True, slots=True)
class NotAllowed(Event):
    """Someone spoke who may not."""

    NAME = "not-allowed"
    MESSAGE_ID = "92a85b1b01ef4b7a97efaef281cc9ec0"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    method: str
    reason: str
    migration: str = ""

    def sentence(self) -> str:
        return f"{self.method} refused: {self.reason}"


@dataclass(frozen=True, slots=True)
class InternalError(Event):
    """The process itself failed in a request."""

    NAME = "internal-error"
    MESSAGE_ID = "c27e4da9817e429889f2f657afcb7fbd"
    LEVEL = logging.CRITICAL
    CLIENTS_CHOICE = True
    pid: int
    exc_info: BaseException

    def sentence(self) -> str:
        return f"vdpad failed in a request of process {self.pid}; VDPAD_EXCEPTION says where"
