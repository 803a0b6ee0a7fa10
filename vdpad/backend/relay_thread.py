"""The thread that relays a device's receive queues (relay/), and is the one that marks meanwhile.

How it works. The thread takes turns of all queues, one after the other, for as long as any finds
something, and then sleeps until the device calls. It does not sleep for long: the device may call
nobody although it has returned something, and may ask for kicks after its last call. So a *tick*
wakes it too (pace.py). It does not spin: a thread that does has Python's other threads wait, and
makes nothing faster where it shares a processor.

Everything that a turn uses is changed by others only between two *rounds* of turns, under the lock:
the guest's memory, the log, the guest's call. It is begun and ended by steps of the device's
(steps.py), while the device stands still.

A round may sleep in a notification, whose counter is the front end's to fill, and so may a step
that notifies: `unblock`, of yet another thread, ends that (steps.py).

A queue that cannot be relayed ends the thread, which says why, once.

The thread is made before the device is touched, and does nothing until it is told to run: where the
system gives none, the device is as it was.

The device calls by eventfds of ours. They are watched edge by edge and never read: their counters
do not get to their ends in any time. select(2) sleeps for microseconds where epoll_wait(2) and
poll(2) know milliseconds, but takes no descriptor from 1024 on; so it sleeps on the epoll's, which
is made when the device is opened, before the descriptors of any guest.
"""

import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from vdpad.backend.faults import BackEndError
from vdpad.backend.relay.pace import Pace
from vdpad.errors import VdpadError
from vdpad.queues.software.worker import Interrupt
from vdpad.vhost_user.device import GuestVring
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.wire.user_threads import start_thread

if TYPE_CHECKING:
    from vdpad.backend.relay.relay import Due, Relay

# How long its end is waited for before a notification that sleeps is ended, in seconds.
_PATIENCE = 0.5


@dataclass(slots=True, eq=False)
class _Queue:
    """One queue that is relayed."""

    vring: GuestVring
    relay: "Relay"
    called: int
    """The eventfd by which the device calls."""
    kick: Interrupt | None = None
    call: Interrupt | None = None

    def notify(self, due: "Due") -> None:
        """Does what a turn has left to be done."""
        if due.calls and self.call is not None:
            self.call()
        if due.kicks and self.kick is not None:
            self.kick()


class NoRelay(BackEndError):
    """The program cannot load what it relays by."""


def _load_relay() -> None:
    """Loads what `begin` uses; the device runs still.

    It imports numpy, for which no back end should wait whose guest never moves. By then its package
    may have been upgraded or removed under it.
    """
    try:
        import_module("vdpad.backend.relay.relay")
    except ImportError as error:
        raise NoRelay(
            f"expected the files that this back end began with, which were replaced: {error}; "
            "start it anew when its guest can do without it"
        ) from error


class RelayThread:
    """That of one device."""

    def __init__(self, failed: Callable[[VdpadError], None]) -> None:
        """It does not run.

        Args:
            failed: called on the thread, once a queue cannot be relayed.
        """
        self._failed = failed
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN | select.EPOLLET)
        self._lock = threading.Lock()
        self._notifying = threading.Lock()
        """Of who drains, and who lets go of, what is notified by."""
        self._kicking: Interrupt | None = None
        self._memory = GuestMemory()
        self._queues: list[_Queue] = []
        self._views = ExitStack()
        self._log: DirtyLog | None = None
        self._thread: threading.Thread | None = None
        self._may_run = threading.Event()
        self._ended = False

    def close(self) -> None:
        """Lets go of everything. No queue is relayed."""
        self._epoll.close()
        os.close(self._wake)
        self._memory.release()

    # --- between rounds ---

    def add(self, region: Region, view: memoryview) -> None:
        """Reaches a region of the guest's memory from now on."""
        with self._lock:
            self._memory.add(region, view[:])

    def remove(self, region: Region) -> None:
        """Leaves a region alone from now on.

        Raises:
            BadRegion: a ring that is relayed lies there.
        """
        with self._lock:
            self._memory.remove(region)

    def set_log(self, log: DirtyLog) -> None:
        """Marks there from now on; what was handed over to the log before is marked in that."""
        with self._lock:
            if self._log is not None:
                self._log.take_over()
            self._log = log
            for queue in self._queues:
                queue.relay.set_log(log)

    def set_call(self, index: int, call: int | None) -> None:
        """Calls the guest by another eventfd, which is copied."""
        interrupt = None if call is None else Interrupt(call)
        with self._lock:
            for queue in self._queues:
                if queue.vring.index == index:
                    queue.call, interrupt = interrupt, queue.call
        if interrupt is not None:
            with self._notifying:
                interrupt.close()

    def unblock(self) -> None:
        """Ends a notification that sleeps, if one does; from any thread."""
        with self._notifying:
            for interrupt in (self._kicking, *self._interrupts()):
                if interrupt is not None:
                    interrupt.unblock()

    def kick(self, kick: int) -> None:
        """Kicks by an eventfd that is no relayed queue's, or not any more; of a step."""
        self._kicking = Interrupt(kick)
        try:
            self._kicking()
        finally:
            with self._notifying:
                self._kicking.close()
                self._kicking = None

    def _interrupts(self) -> Iterator[Interrupt | None]:
        for queue in self._queues:
            yield from (queue.kick, queue.call)

    # --- from make to release; the device stands still, and only `run` is later ---

    def make(self, log: DirtyLog) -> None:
        """Makes the thread, which waits, and marks here.

        Raises:
            NoThread, NoRelay: there is none; nothing has changed.
        """
        _load_relay()
        self._ended = False
        self._may_run.clear()
        self._thread = start_thread(self._work, "relay")
        self.set_log(log)

    def begin(self, vring: GuestVring, ours: memoryview, features: FeatureSet) -> int:
        """Makes our used ring the guest's, for a queue that is relayed from `run` on.

        Args:
            vring: as the front end has set it up; its descriptors are copied.
            ours: where our used ring lies; released at `release`.
            features: those negotiated with the device.

        Returns:
            the eventfd by which the device is to call; this object's.

        Raises:
            BadGeometry: the ring is not in the memory.
        """
        from vdpad.backend.relay.relay import Relay, queue_in

        views = self._views
        views.callback(ours.release)
        event_idx = Feature.RING_EVENT_IDX in features
        indirect = Feature.RING_INDIRECT_DESC in features
        queue = queue_in(views, self._memory, vring.addresses, ours, indirect=indirect)
        in_order = Feature.IN_ORDER in features
        relay = Relay(
            queue, self._memory, self._current_log, event_idx=event_idx, in_order=in_order
        )
        relay.begin()
        called = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        views.callback(os.close, called)
        self._epoll.register(called, select.EPOLLIN | select.EPOLLET)
        relayed = _Queue(vring, relay, called)
        # From here on `release` closes what it has, also where there are no more descriptors.
        self._queues.append(relayed)
        relayed.kick = None if vring.kick is None else Interrupt(vring.kick)
        relayed.call = None if vring.call is None else Interrupt(vring.call)
        return called

    def run(self) -> None:
        """Starts to relay."""
        self._may_run.set()

    def halt(self) -> None:
        """Relays no more; a turn that runs is finished."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._ended = True
        self._may_run.set()
        os.eventfd_write(self._wake, 1)
        thread.join(_PATIENCE)
        while thread.is_alive():
            self.unblock()
            thread.join(_PATIENCE)

    def finish(self, others: Sequence[Region]) -> None:
        """Relays what a device has left that is suspended, and marks all that is left to be marked.

        Args:
            others: what the device has written to beside, wherever in it.

        Raises:
            VdpadError: a queue cannot be relayed; what was written is not all marked.
        """
        for queue in self._queues:
            queue.notify(queue.relay.finish())
        for region in others:
            self._current_log.mark(region.iova, region.size)
        self._current_log.take_over()

    def release(self) -> None:
        """Lets go of all queues."""
        for queue in self._queues:
            self._epoll.unregister(queue.called)
        with self._notifying:
            for interrupt in self._interrupts():
                if interrupt is not None:
                    interrupt.close()
            self._queues = []
        self._views.close()
        self._views = ExitStack()
        self._log = None

    @property
    def _current_log(self) -> DirtyLog:
        assert self._log is not None
        return self._log

    # --- the thread ---

    def _work(self) -> None:
        pace = Pace()
        self._may_run.wait()
        while not self._ended:
            try:
                with self._lock:
                    found = self._round()
            except VdpadError as error:
                self._failed(error)
                return
            seconds = pace.sleeps(found)
            called, _, _ = select.select([self._epoll], [], [], seconds)
            if called:
                self._epoll.poll(0)
            if seconds:
                pace.was_called = bool(called)

    def _round(self) -> int:
        """How many chains it has returned; one that asks for kicks counts as one."""
        found = 0
        for queue in self._queues:
            due = queue.relay.turn()
            if not due.is_idle:
                queue.notify(due)
                found += max(1, due.returned)
        self._current_log.take_over()
        return found
