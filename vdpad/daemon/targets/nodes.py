"""Which device a node's path opens, whoever names it and wherever that lies.

Looking at a path sleeps for as long as the file system pleases on which it lies, and a client
chooses the path. Only what stands in /dev itself is looked at at once: nobody but root puts
anything there. All else is looked at by a thread of that user's, so that he waits behind his own
paths alone; and nobody waits for long.
"""

import asyncio
from functools import partial
from pathlib import Path

from vdpad.host import sysfs
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.threads import on_a_user_s_thread
from vdpad.service.users.shares import Shares
from vdpad.wire.user_threads import UserThreads

_DEV = Path("/dev")

_MAX_WAITING = 16
"""Paths of one user who is alone, that are looked at or wait for it."""

# In seconds. A file system that takes longer is no place for a node.
_PATIENCE = 5.0


class NodePaths:
    """The look-ups of one daemon."""

    def __init__(self) -> None:
        """None is under way."""
        self._threads = UserThreads("node")
        self._waiting = Shares(_MAX_WAITING)

    async def name_of(self, path: Path, user: int) -> str | None:
        """The device that a path opens, or a link there; None where it opens none.

        Cancellation leaves the look-up to its thread.

        Args:
            path: as a request has it.
            user: whose request it is.

        Raises:
            Refusal: overloaded: too many of this user's wait; timeout: its file system is silent.
            NoThread: there is none.
        """
        if path.parent == _DEV:
            return sysfs.name_of_node(path)
        if not self._waiting.take(user):
            raise Refusal(
                Kind.OVERLOADED,
                f"expected at most {_MAX_WAITING} paths of a user's that are looked at, got more; "
                "name devices by their vdpa names",
            )
        try:
            look = partial(sysfs.name_of_node, path)
            found = on_a_user_s_thread(self._threads, user, look)
        except BaseException:
            self._waiting.give_back(user)
            raise
        found.add_done_callback(lambda _: self._waiting.give_back(user))
        await asyncio.wait([found], timeout=_PATIENCE)
        if not found.done():
            raise Refusal(
                Kind.TIMEOUT,
                f"expected the path of a vhost-vdpa device's node, its file system has said "
                f"nothing for {_PATIENCE:g} s; name the device by its vdpa name",
            )
        return found.result()
