"""A client that asks a process again and again, while others do to it what they can."""

import json
import socket
import threading
import time
from pathlib import Path

from tests.support.waiting import until

GIVEN_UP = 10.0
"""In seconds, what it waits for a reply."""

_INFO = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "info", "params": {}}).encode()


class Honest(threading.Thread):
    """Asks for `info`, again and again; on a thread, so that pauses of the test are none of its."""

    def __init__(self, path: Path, pause: float = 0) -> None:
        """
        Args:
            path: the process' socket.
            pause: between a reply and the next request, in seconds.
        """
        super().__init__()
        self._pause = pause
        self._path = str(path)
        self._ends = threading.Event()
        self.replies = 0
        self.longest = 0.0
        """Seconds that a reply took."""
        self.gave_up = False

    def run(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            asking.bind("")
            asking.settimeout(GIVEN_UP)
            while not self._ends.is_set():
                began = time.perf_counter()
                try:
                    asking.sendto(_INFO, self._path)
                    asking.recv(1 << 18)
                except TimeoutError:
                    self.gave_up = True
                    return
                self.longest = max(self.longest, time.perf_counter() - began)
                self.replies += 1
                time.sleep(self._pause)

    async def is_answered(self, times: int) -> None:
        """Returns when it was, so many times from now on, or gave up."""
        enough = self.replies + times
        await until(lambda: self.replies >= enough or self.gave_up)

    def end(self) -> None:
        """Ends it, after the reply that it waits for."""
        self._ends.set()
        self.join()
