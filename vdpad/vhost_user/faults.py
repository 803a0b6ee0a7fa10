"""What goes wrong between a front end and us, and whose fault it is.

- `BadMessage`: what came is no message. Nothing that comes behind it can be told apart from noise,
  so the connection is closed.
- `NotServed`: a message that is well formed, and cannot be served now. The front end is told where
  the protocol has a way to; else the connection is closed, since it would go on as if it were done.
- `NotTold`: the same, of what front ends take for done whatever they are told. So the connection is
  closed.
- `BasesUnknown`: a device was stopped, and does not tell where it has left its rings. Who asks for
  the base of one is told `NotServed`.
- `FrontEndGone`: nobody is there to be told anything.
- `NoMeans`: it is the system that does not give what serving takes.

Whatever else a device raises of its own is told to the front end as `NotServed` is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vdpad.errors import VdpadError, why


class VhostUserError(VdpadError):
    """A session does not go as the front end wants it to."""


class BadConnection(VhostUserError):
    """A descriptor over which no vhost-user can be spoken."""


class BadMessage(VhostUserError, ValueError):
    """The front end breaks the protocol's form."""


class NotServed(VhostUserError):
    """The front end asks for what cannot be, or cannot be now."""


class NotTold(NotServed):
    """The front end asks for what cannot be, and would go on as if it were."""


class BasesUnknown(VhostUserError):
    """The device is stopped, and nobody knows where it has left some of its rings."""

    def __init__(self, why: str, known: Mapping[int, int]) -> None:
        """
        Args:
            why: a sentence for people, with what to do.
            known: the bases of the other rings, by index.
        """
        super().__init__(why)
        self.known = known


class FrontEndGone(VhostUserError):
    """The front end has closed its end."""


class NoMeans(VhostUserError):
    """The system does not give what it takes to serve: descriptors, memory."""


@contextmanager
def means() -> Iterator[None]:
    """Where the system refuses something, a front end is refused, and the process goes on.

    Raises:
        NoMeans: in place of what nobody has said in our words: an OSError, no memory, a library
            that is needed now and cannot be loaded.
    """
    try:
        yield
    except (OSError, MemoryError, ImportError) as error:
        if isinstance(error, VdpadError):
            raise
        raise NoMeans(
            f"expected the system to give what it takes, got {_what(error)}; raise the limit that "
            "this names (LimitNOFILE= of a unit for files)"
        ) from error


def _what(error: Exception) -> str:
    return "no memory" if isinstance(error, MemoryError) else why(error)
