"""Processes that begin in milliseconds: forked by one that has imported what they run.

The forker reads command lines, one at a time as JSON, and tells of each child its pid and then its
exit code. Run as a module, with the name of another one that has a `main`, it is the forker.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module


class Child:
    """A process that runs, or has run."""

    def __init__(self, forker: "subprocess.Popen[bytes]") -> None:
        self._forker = forker
        pid = self._told()
        self._fd: int | None = None
        # The forker waits for it, so it may be gone by now.
        with contextlib.suppress(ProcessLookupError):
            self._fd = os.pidfd_open(pid)
        self._exit_code: int | None = None

    def kill(self) -> int:
        """Kills it with SIGKILL, if it has not ended, and gives its exit code."""
        if self._fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            os.close(self._fd)
            self._fd = None
        if self._exit_code is None:
            self._exit_code = self._told()
        return self._exit_code

    def _told(self) -> int:
        assert self._forker.stdout is not None
        return int(self._forker.stdout.readline())


class Forker:
    """Starts one child after the other."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @contextlib.contextmanager
    def child(self, *arguments: str) -> Iterator[Child]:
        """A process that runs the module's `main` with these arguments; killed at the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
        self._process.stdin.flush()
        child = Child(self._process)
        try:
            yield child
        finally:
            child.kill()


@contextlib.contextmanager
def forker(module: str) -> Iterator[Forker]:
    """Forks processes that run a module's `main`."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__, module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield Forker(process)


def _main() -> None:
    run = import_module(sys.argv[1]).main
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os._exit(_ended(run, json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _ended(run: object, arguments: list[str]) -> int:
    try:
        assert callable(run)
        return int(run(arguments) or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


if __name__ == "__main__":
    _main()
