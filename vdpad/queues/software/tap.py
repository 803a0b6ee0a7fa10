"""A TAP interface, by one queue: the frames of an interface of this network namespace.

Whoever opens /dev/net/tun may attach to an interface that exists and belongs to his user or group
(`ip tuntap add dev tap0 mode tap user vdpad`), without any privilege. Where there is none of the
name the kernel makes it, for whoever has CAP_NET_ADMIN, and removes it when it is closed.

Frames are whole: no header before them, and no offload, so the kernel fills in checksums and cuts
segments for us.

Source: Linux 6.12, drivers/net/tun.c; include/uapi/linux/if_tun.h, if.h.
"""

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from vdpad.errors import VdpadError

PATH = "/dev/net/tun"

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_SIOCGIFHWADDR = 0x8927

_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000

# struct ifreq: the name, and a union of which the flags are used, or an address behind its family.
_WITH_FLAGS = struct.Struct("=16sH22x")
_WITH_ADDRESS = struct.Struct("=16sH6s16x")

# The largest MTU that an interface may have, with its header; and a VLAN tag, which is put back.
_MAX_FRAME = 65535 + 4

# Of Linux (dev_valid_name), and none that it makes a name of ("tap%d").
_NAME = re.compile(r"(?!\.\.?$)[!-$&-.0-9;-~]{1,15}")


class TapError(VdpadError):
    """The interface cannot be used."""


class TapBusy(TapError):
    """A process has it, which may be this one."""


class TapNotPermitted(TapError):
    """This process may not attach to it, or not open the node."""


def is_name(text: str) -> bool:
    """Whether an interface can be named so."""
    return _NAME.fullmatch(text) is not None


class Tap:
    """An interface that is attached to. For one thread."""

    def __init__(self, fd: int, name: str) -> None:
        """
        Args:
            fd: attached to it, non-blocking; closed by `close`.
            name: of the interface.
        """
        self.fd = fd
        self.name = name
        found = fcntl.ioctl(fd, _SIOCGIFHWADDR, bytes(_WITH_ADDRESS.size))
        self.address = bytes(_WITH_ADDRESS.unpack(found)[2])
        """The interface's own, of 6 bytes: this host's end of the link."""
        self.is_gone = False
        """Whether it was found removed; it never comes back."""

    @classmethod
    def attach(cls, name: str) -> Self:
        """Attaches to the interface, or has the kernel make it.

        Raises:
            TapError: that cannot be.
        """
        with _refused(name):
            fd = os.open(PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                wanted = _WITH_FLAGS.pack(name.encode(), _IFF_TAP | _IFF_NO_PI)
                fcntl.ioctl(fd, _TUNSETIFF, wanted)
                # Of whoever had it before.
                fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)
                return cls(fd, name)
            except BaseException:
                os.close(fd)
                raise

    def read(self) -> bytes | None:
        """The next frame that the host sends; None where there is none now, or it is gone."""
        try:
            return os.read(self.fd, _MAX_FRAME)
        except BlockingIOError:
            return None
        except OSError as error:
            self._failed(error)
            return None

    def write(self, frame: bytes) -> bool:
        """Lets the host receive a frame; whether it does. It does not where it is down."""
        try:
            os.write(self.fd, frame)
        except OSError as error:
            self._failed(error)
            return False
        return True

    def close(self) -> None:
        """Lets go of it. One that the kernel made for us is gone then."""
        os.close(self.fd)

    def _failed(self, error: OSError) -> None:
        if error.errno == errno.EBADFD:
            self.is_gone = True


_ADVICE: Mapping[int, str] = {
    errno.ENOENT: "load the module tun, and let this service see the node",
    errno.EACCES: "let this user have the node, and this service (DeviceAllow=/dev/net/tun rw)",
    errno.EPERM: (
        "make it for this user (`ip tuntap add dev NAME mode tap user USER`), and let this service "
        "have the node (DeviceAllow=/dev/net/tun rw)"
    ),
    errno.EBUSY: "another process has it, or this one; only one can",
    errno.EINVAL: "it must be a TAP interface, and one without multi_queue",
}

_KINDS: Mapping[int, type[TapError]] = {
    errno.EACCES: TapNotPermitted,
    errno.EPERM: TapNotPermitted,
    errno.EBUSY: TapBusy,
}


@contextmanager
def _refused(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _fault(name, error) from error


def _fault(name: str, error: OSError) -> TapError:
    kind = _KINDS.get(error.errno or 0, TapError)
    advice = _ADVICE.get(error.errno or 0, "the kernel's log may say why")
    return kind(
        f"{name}: expected a TAP interface to attach to, got {error.strerror} from {PATH}; {advice}"
    )
