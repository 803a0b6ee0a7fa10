"""The state of a guest that moves: out of one back end, and into another that tries it first.

    source        stopped ── save ──▶ a document ──▶ the VMM's stream, or a file
    destination   stopped ── load ──▶ read, checked, rehearsed ──▶ kept for the start that goes on

How it works. What leaves is what `capture` tells while the device is stopped, and nothing changes
by it: a guest whose move fails goes on where it is. A guest whose settings no state can say does
not leave, since it would lack them; nor does one whose device does not tell where it has left its
queues: QEMU goes on without the bases, and gives a migration up for the state alone.

What comes in is hostile until the document is read whole (state/formats/device_state.py), fits what
the device offers, and has been tried on it (rehearsal.py). Only then it takes the place of what was
known of a guest; where it goes back is device_lifecycle.py's, at the next start that goes on. Who
was given a state that is not taken has lost the guest that it belongs to, so such a start is
refused then (GuestSettings.lose): with what a guest before had set it must not go on, nor with
nothing.

A guest that is here keeps what it has set: while it runs, and while it stands still and its memory
is logged, as then it is about to leave and goes on here if that fails.

A rehearsal has the device to itself: `turn` is held by it and by each start.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import vdpad
from vdpad.backend.events import StateLoaded, StateSaved
from vdpad.backend.faults import DeviceRuns, NotRestored
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.listeners import Listeners
from vdpad.backend.moving.foreign_file import ForeignFiles
from vdpad.backend.moving.rehearsal import Rehearsed, check, rehearse
from vdpad.backend.owned_device import OwnedDevice
from vdpad.errors import VdpadError
from vdpad.restore.report import Report
from vdpad.state.formats import device_state
from vdpad.state.formats.device_state import StateWriter, bases_of, missing_of
from vdpad.state.found import Missing
from vdpad.state.model import NetState
from vdpad.state.recorder import Recorder
from vdpad.vhost_user.faults import BasesUnknown


@dataclass(frozen=True, slots=True)
class MovedState:
    """What comes in for a guest."""

    state: NetState | None
    """None where the source knew of no guest."""
    missing: tuple[Missing, ...]
    """What the state does not tell."""
    bases: Mapping[int, int]
    """Where its queues stood, by index: for people, see device_lifecycle.py."""


class Moving:
    """One device's part in moves."""

    def __init__(
        self,
        owned: Callable[[], OwnedDevice],
        settings: GuestSettings,
        name: str,
        listeners: Listeners,
        *,
        rehearses: bool,
        runs: Callable[[], bool],
        logs: Callable[[], bool],
        behind_memory: Callable[[], int],
        reported: Callable[[Report], None],
    ) -> None:
        """
        Args:
            owned: the device that the back end has at the time.
            settings: what is known of the guest.
            name: of the back end.
            listeners: who is told.
            rehearses: whether what comes in by a stream is tried.
            runs: whether the device does.
            logs: whether the guest's memory is logged.
            behind_memory: a device address behind all of the guest's memory.
            reported: is given what became of a rehearsal's commands.
        """
        self.turn = asyncio.Lock()
        """Of whoever brings the device up."""
        self._owned = owned
        self._settings = settings
        self._name = name
        self._listeners = listeners
        self._rehearses = rehearses
        self._runs = runs
        self._logs = logs
        self._behind_memory = behind_memory
        self._reported = reported
        self._files = ForeignFiles()

    # --- out ---

    async def save(self, fd: int) -> None:
        """Writes what is known of the guest; see VhostUserDevice.

        Raises:
            BasesUnknown: nobody knows where its queues stand.
            NotRestored: no state can say what it has set.
            BadTransfer: it cannot be written.
        """
        if self._settings.unplaced:
            raise BasesUnknown(self._settings.unplaced, self._settings.bases)
        found, state = self._settings.found(), self._settings.to_restore()
        writer = StateWriter(
            vdpad=vdpad.__version__, back_end=self._name, device=self._owned().name
        )
        missing = () if found is None else found.missing
        data = device_state.encode(writer, state, missing, self._settings.bases)
        await self._files.write(fd, data)
        self._listeners.announce(StateSaved(self._name, len(data)))

    # --- in ---

    async def load(self, fd: int) -> None:
        """Reads a state and takes it for the next start; see VhostUserDevice.

        Raises:
            FormatError: it is no device state.
            BadTransfer: it cannot be read.
            VdpadError: as of `take`.
        """
        try:
            data = await self._files.read(fd, device_state.MAX_SIZE)
            document = device_state.decode(data)
            missing, bases = missing_of(document.missing), bases_of(document.rings)
            moved = MovedState(document.state, missing, bases)
            await self.take(moved, tried=self._rehearses)
        except VdpadError as error:
            if not self._keeps_guest():
                self._settings.lose(str(error))
                self._listeners.settings_changed()
            raise

    async def take(self, moved: MovedState, *, tried: bool) -> Report | None:
        """Takes a state for the next start that goes on. Else nothing has changed.

        Args:
            moved: what came in.
            tried: whether it is rehearsed first.

        Returns:
            what the rehearsal came to, if there was one.

        Raises:
            DeviceRuns: a guest has the device, or is about to leave it.
            NotRestored: the device does not take the state.
            VdpadError: the device does not come up.
        """
        async with self.turn:
            self._check_free()
            rehearsed = await self._try(moved.state, tried=tried)
            # A migration may have begun meanwhile.
            self._check_free()
            self._believe(moved)
        commands, duration_us = 0, 0
        if rehearsed is not None:
            commands, duration_us = rehearsed.report.commands, rehearsed.duration_us
        self._listeners.announce(
            StateLoaded(self._name, rehearsed is not None, commands, duration_us)
        )
        return None if rehearsed is None else rehearsed.report

    def _keeps_guest(self) -> bool:
        return self._runs() or self._logs()

    def _check_free(self) -> None:
        if self._runs():
            raise DeviceRuns(
                "expected a device that is stopped, a guest has it; stop the guest, or load "
                "before it comes"
            )
        if self._logs():
            raise DeviceRuns(
                "expected a device whose guest is not about to leave, its memory is logged and it "
                "would go on here without what it has set; load at the destination, or after the "
                "source's VMM has ended or the migration was cancelled"
            )

    async def _try(self, state: NetState | None, *, tried: bool) -> Rehearsed | None:
        if state is None:
            return None
        owned = self._owned()
        check(state, owned.offer)
        if not tried:
            return None
        try:
            rehearsed = await rehearse(state, owned, name=self._name, behind=self._behind_memory())
        except NotRestored as error:
            if error.report is not None:
                self._reported(error.report)
            raise
        self._reported(rehearsed.report)
        return rehearsed

    def _believe(self, moved: MovedState) -> None:
        if moved.state is None:
            self._settings.forget()
        else:
            recorder = Recorder.of(moved.state, moved.missing)
            self._settings.recall(recorder, moved.state.features, moved.bases)
            self._settings.has_moved = True
        self._listeners.loaded()
