"""Threads for work that may sleep for as long as a user pleases: one for each, made when needed.

What one user's work does holds up none but his own. Nobody waits for such a thread, not even the
process's end. A thread that has nothing to do for a while ends.
"""

import queue
import threading
from collections.abc import Callable
from functools import partial

from vdpad.errors import VdpadError

# How many users have a thread at once; the others share one. Stops users without number from
# taking all threads.
_MAX_USERS = 64

# Under a number that no user has.
_SHARED = -2

# How long a thread waits for more before it ends, in seconds.
_IDLE = 1.0

Work = Callable[[], None]


class NoThread(VdpadError):
    """The system gives this process no further thread."""


def start_thread(work: Work, name: str) -> threading.Thread:
    """Begins work on a thread that does not keep the process from ending.

    Raises:
        NoThread
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThread(
            f"expected the system to give a further thread, got {error}; raise the limit on them "
            "(TasksMax= of a unit)"
        ) from error
    return thread


class UserThreads:
    """The threads for one kind of work."""

    def __init__(self, name: str) -> None:
        """
        Args:
            name: of the work; the threads' names begin with it.
        """
        self._name = name
        self._lock = threading.Lock()
        self._queues: dict[int, queue.SimpleQueue[Work]] = {}
        """Of each user whose thread runs."""

    def __len__(self) -> int:
        return len(self._queues)

    def do(self, uid: int, work: Work) -> None:
        """Has something done after all else that this user's thread has to do.

        Args:
            uid: of whoever it may sleep for.
            work: raises nothing. How much of it waits is for the caller to bound.

        Raises:
            NoThread: it is not done.
        """
        with self._lock:
            key = uid if uid in self._queues or len(self._queues) < _MAX_USERS else _SHARED
            waiting = self._queues.get(key)
            if waiting is None:
                waiting = queue.SimpleQueue()
                start_thread(partial(self._work, key, waiting), f"{self._name} {key}")
                self._queues[key] = waiting
            # Under the lock, so that the thread does not end in between.
            waiting.put(work)

    def _work(self, key: int, waiting: "queue.SimpleQueue[Work]") -> None:
        while True:
            try:
                work = waiting.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if waiting.empty():
                        del self._queues[key]
                        return
                continue
            work()
            del work
