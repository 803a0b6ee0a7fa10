"""Our commands as processes that begin in milliseconds: forked by one that has imported them.

Python takes most of a second of a processor to import a daemon, and tests start thousands. A forker
is a process that imported a command's module and runs no line of it. It reads requests from a
socket, each with the descriptors of the child's standard streams and one to tell of the child by:
its pid, then how it ended. The child runs the module as `python -m` does, in the environment and
folder of whoever asked, with no other descriptor open.

It differs from a process begun anew in this: the interpreter took the locale's letters from the
forker's environment and of variables like it only PYTHONUNBUFFERED, memory that the forker has
written counts as the child's, and a child that exits leaves its modules to the kernel, which for
an interpreter to take apart costs more than all else. Tests of such things start `python -m`
themselves.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

_ROOT = Path(__file__).parents[2]

_MAX_REQUEST = 200 * 1024

# linux/sched.h
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000


class Child:
    """A process that runs, or has run; to be used as a subprocess.Popen is."""

    def __init__(self, args: Sequence[str], told: socket.socket) -> None:
        self.args = args
        self.returncode: int | None = None
        self._told = told
        self.pid = int(told.recv(32))

    def poll(self) -> int | None:
        """Its exit code, or a signal's number below zero; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.recv(32))
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forker:
    """Starts processes that run one module."""

    def __init__(self, module: str, *more: str, environment: dict[str, str]) -> None:
        """Begins to import it in this environment, and more that it imports once it is needed."""
        self.module = module
        self._requests, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with others:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, module, *more],
                stdin=others.fileno(),
                stdout=subprocess.DEVNULL,
                cwd=_ROOT,
                env=environment,
            )

    def start(
        self,
        *arguments: str | bytes | Path,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = 1,
        stderr: int | IO[Any] = 2,
        closed: Collection[int] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path = _ROOT,
        within: int | None = None,
    ) -> Child:
        """Starts one, with nothing on standard input; all else is as Popen has it.

        Args:
            arguments, stdin, stdout, stderr, env, cwd: as Popen has them.
            closed: the standard streams that it has not got, by their descriptors.
            within: the process whose mounts and network it has, if not the forker's.
        """
        variables = (os.environ if env is None else env).items()
        request = {
            "arguments": [*map(_sent, arguments)],
            "closed": [*closed],
            "env": {_sent(name): _sent(value) for name, value in variables},
            "cwd": str(cwd),
            "within": within,
        }
        ours, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with told, open(os.devnull, "r+b") as null:
            streams = [_descriptor(each, null.fileno()) for each in (stdin, stdout, stderr)]
            fds = [*streams, told.fileno()]
            socket.send_fds(self._requests, [json.dumps(request).encode()], fds)
        return Child([self.module, *map(os.fsdecode, arguments)], ours)

    @contextlib.contextmanager
    def child(self, *arguments: str | bytes | Path, **more: Any) -> Iterator[Child]:
        """The same, killed at the end."""
        child = self.start(*arguments, **more)
        try:
            yield child
        finally:
            child.kill()
            child.wait()

    def run(
        self, *arguments: str | bytes | Path, stdin: bytes = b"", timeout: float = 60, **more: Any
    ) -> "subprocess.CompletedProcess[bytes]":
        """Runs one to its end, for so many seconds at most, and gives what it wrote.

        A stream that is among `more` is its own; what it wrote there is not told.
        """
        with contextlib.ExitStack() as stack:
            given, out, err = (
                stack.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(3)
            )
            given.write(stdin)
            given.seek(0)
            child = self.start(*arguments, **{"stdin": given, "stdout": out, "stderr": err, **more})
            try:
                code = child.wait(timeout)
            finally:
                child.kill()
                child.wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(child.args, code, out.read(), err.read())

    def text(
        self, *arguments: str | bytes | Path, **more: Any
    ) -> "subprocess.CompletedProcess[str]":
        """The same, with what it wrote as text."""
        done = self.run(*arguments, **more)
        written = done.stdout.decode(), done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, *written)

    def lay(self, program: Path) -> int:
        """Lays down a program that is run by this: for those who start one by its name.

        Returns:
            A descriptor that they, and whoever they start, must have open.
        """
        requests = self._requests.fileno()
        asks = Path(__file__).with_name("asks_forker.py")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {asks} {requests} "$@"\n')
        program.chmod(0o755)
        return requests

    def close(self) -> None:
        """Ends the forker; its children go on."""
        self._requests.close()
        self._process.wait()


def _sent(name: str | bytes | Path) -> str:
    """Bytes as JSON can have them; only the child knows what letters they are to it."""
    return os.fsencode(name).decode("latin-1")


def _came(name: str) -> bytes:
    return name.encode("latin-1")


def _descriptor(stream: int | IO[Any], null: int) -> int:
    if stream == subprocess.DEVNULL:
        return null
    return stream if isinstance(stream, int) else stream.fileno()


@contextlib.contextmanager
def forker(module: str) -> Iterator[Forker]:
    """One of its own."""
    own = Forker(module, environment=dict(os.environ))
    try:
        yield own
    finally:
        own.close()


@functools.cache
def forker_of(module: str, *more: str, **variables: str) -> Forker:
    """The one that is so, with these variables from its start; it stays until the end."""
    shared = Forker(module, *more, environment={**os.environ, **variables})
    atexit.register(shared.close)
    return shared


# --- the forker's process ---


class _Request(NamedTuple):
    arguments: list[str]
    env: dict[str, str]
    cwd: str
    fds: list[int]
    closed: Sequence[int] = ()
    within: int | None = None


def _main() -> None:
    module = sys.argv[1]
    for each in sys.argv[1:]:
        import_module(each)
    # The collector would write to all that was imported, and so copy it for each child.
    gc.collect()
    gc.freeze()
    request = None
    with contextlib.suppress(KeyboardInterrupt):
        request = _serve(0)
    if request is not None:
        _become(request)
        sys.argv = [module, *(os.fsdecode(_came(each)) for each in request.arguments)]
        del sys.modules[module]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as exits:
            if exits.code is None or isinstance(exits.code, int):
                _exit(exits.code or 0)
            raise


def _serve(requests: int) -> _Request | None:
    """Forks for each request, until nobody asks any more; returns the request in the child."""
    children: dict[int, tuple[int, int]] = {}
    ready = select.poll()
    ready.register(requests, select.POLLIN)
    while True:
        for fd, _ in ready.poll():
            if fd in children:
                ready.unregister(fd)
                _tell_end(fd, *children.pop(fd))
                continue
            request = _received(requests)
            if request is None:
                return None
            pid = os.fork()
            if not pid:
                return request
            *streams, told = request.fds
            for stream in streams:
                os.close(stream)
            os.write(told, b"%d" % pid)
            ended = os.pidfd_open(pid)
            children[ended] = pid, told
            ready.register(ended, select.POLLIN)


def _received(requests: int) -> _Request | None:
    with socket.socket(fileno=os.dup(requests)) as asked:
        data, fds, _, _ = socket.recv_fds(asked, _MAX_REQUEST, 4)
    return _Request(**json.loads(data), fds=fds) if data else None


def _tell_end(pidfd: int, pid: int, told: int) -> None:
    _, status = os.waitpid(pid, 0)
    # Whoever asked may have gone.
    with contextlib.suppress(BrokenPipeError):
        os.write(told, b"%d" % os.waitstatus_to_exitcode(status))
    os.close(told)
    os.close(pidfd)


def _become(request: _Request) -> None:
    for number, stream in enumerate(request.fds[:3]):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in request.closed:
        os.close(number)
    # Those of the forker know whether its files could be sought in, and not the child's.
    sys.stdin = _anew(sys.stdin, "r", request)
    sys.stdout = _anew(sys.stdout, "w", request)
    sys.stderr = _anew(sys.stderr, "w", request)
    if request.within is not None:
        _enter(request.within)
    os.chdir(request.cwd)
    os.environb.clear()
    os.environb.update({_came(name): _came(value) for name, value in request.env.items()})


def _enter(pid: int) -> None:
    """Takes the mount and network namespaces of a process, and its user's where that is not root.

    As nsenter(1) does; the folder is that namespace's root then.
    """
    own = 0 if os.geteuid() == 0 else _CLONE_NEWUSER
    held = os.pidfd_open(pid)
    if ctypes.CDLL(None, use_errno=True).setns(held, own | _CLONE_NEWNS | _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"the namespaces of {pid}")
    os.close(held)


def _exit(code: int) -> None:
    """Ends the process as the interpreter does, but for its modules; returns where that fails.

    What failed fails once more in the interpreter's hands, and it says so as ever.
    """
    threading._shutdown()  # type: ignore[attr-defined] # no module knows it by another name
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        # What lies in cycles may have something to say at its end.
        gc.collect()
        os._exit(code & 0xFF)


def _anew(stream: TextIO, mode: str, request: _Request) -> Any:
    """A standard stream in the place of the forker's, as the interpreter makes it."""
    fd = stream.fileno()
    if fd in request.closed:
        return None
    unbuffered = bool(request.env.get("PYTHONUNBUFFERED"))
    return io.TextIOWrapper(
        open(fd, f"{mode}b", 0 if unbuffered and mode == "w" else -1, closefd=False),
        encoding=stream.encoding,
        errors=stream.errors,
        newline=None if mode == "r" else "\n",
        line_buffering=not unbuffered and (fd == 2 or os.isatty(fd)),
        write_through=unbuffered,
    )


if __name__ == "__main__":
    _main()
