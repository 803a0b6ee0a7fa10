"""Other users: threads of this process that the kernel takes for theirs, and a folder for all."""

import ctypes
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from tests.availability import skip_or_fail

P = ParamSpec("P")
T = TypeVar("T")

# setgroups, setresgid, setresuid: Linux arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h. The C library's own change all threads.
_CALLS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}

ALICE, BOB, CAROL = 60_001, 60_002, 60_003
"""Uids, and gids of the same number, that no host gives to anybody."""


class User:
    """Does things as another user: what it sends, connects and binds is his, by the kernel."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self._thread = ThreadPoolExecutor(1)
        self.do(_become, uid)

    def do(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls as this user."""
        return self._thread.submit(call, *args, **kwargs).result()

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()


def _become(uid: int) -> None:
    setgroups, setresgid, setresuid = _CALLS[platform.machine()]
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    for call in ((setgroups, 0, None), (setresgid, uid, uid, uid), (setresuid, uid, uid, uid)):
        if syscall(*call):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def users(*uids: int) -> Iterator[list[User]]:
    """These users. It takes root."""
    if os.geteuid() != 0:
        skip_or_fail("only root can become other users")
    with ExitStack() as stack:
        made = [User(uid) for uid in uids]
        for each in made:
            stack.callback(each.close)
        yield made


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter and write to."""
    with tempfile.TemporaryDirectory(prefix="vdpad-test-") as name:
        Path(name).chmod(0o777)
        yield Path(name)
