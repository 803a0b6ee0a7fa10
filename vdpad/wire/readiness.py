"""Waiting for a socket without a stream or a protocol around it."""

import asyncio
import select
import socket


async def readable(connection: socket.socket) -> None:
    """Returns when there is something to read, the end included. Cancellation leaves nothing."""
    loop = asyncio.get_running_loop()
    ready = _Ready(loop)
    loop.add_reader(connection, ready.set)
    try:
        await ready.future
    finally:
        loop.remove_reader(connection)


async def writable(connection: socket.socket) -> None:
    """Returns when there is room to write, or nobody to read. Cancellation leaves nothing."""
    loop = asyncio.get_running_loop()
    ready = _Ready(loop)
    loop.add_writer(connection, ready.set)
    try:
        await ready.future
    finally:
        loop.remove_writer(connection)


async def hung_up(connection: socket.socket) -> None:
    """Returns when the other end is closed, whatever it sent that nobody has read yet.

    A loop's reader would be told of that only. So the socket is in an epoll set of its own, which
    asks for nothing and is told of a hang-up all the same, and the loop waits for that set.
    Cancellation leaves nothing behind.
    """
    loop = asyncio.get_running_loop()
    ready = _Ready(loop)
    with select.epoll() as hang_ups:
        hang_ups.register(connection, 0)
        loop.add_reader(hang_ups, ready.set)
        try:
            await ready.future
        finally:
            loop.remove_reader(hang_ups)


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other end is closed, whatever it sent that nobody has read yet."""
    looking = select.poll()
    looking.register(connection, 0)
    return bool(looking.poll(0))


class _Ready:
    """A future that may be set more than once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()

    def set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)
