"""Keeping what the guest has set where it outlives the process, before the guest hears of its ack.

    KEEPING ──a write fails, or no state can say it──▶ NOT KEEPING
       ▲  └─────────────── forget ──────────────────────────┐ │
       └──────────────────── begin ─────────────────────────┴─┘

`begin` writes a file with the state as it is (file.py): when the device starts, and when the log is
full. `note` adds a command. `forget` removes the file: what a guest had set that was reset must not
come back.

A file that cannot be read may be another version's, and is set aside: whoever can read it before a
guest has begun here again, recalls it. Once one has, it is for people alone.

What cannot be kept is told once and removed, and fails nothing: the guest goes on, and
it is a restart that it would not survive.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from vdpad.backend.kept.file import (
    CHANGING,
    MAX_FILE,
    BadFile,
    Kept,
    Log,
    decode_file,
    encode_file,
)
from vdpad.backend.process_events import SettingsNotKept, SettingsRecalled, SettingsUnreadable
from vdpad.errors import why
from vdpad.service.events.announcing import Announce
from vdpad.service.own_directory import (
    NoDirectory,
    NoFile,
    read_file,
    set_aside,
    take_directory,
    write_file,
)
from vdpad.state.found import Found
from vdpad.state.problems import summary

_NAME = "guest.state"
_SET_ASIDE = "guest.unreadable"
_SUPERSEDED = "guest.superseded"


class KeptState:
    """The directory of one back end."""

    def __init__(
        self,
        name: str,
        directory: Path,
        found: Callable[[], Found | None],
        announce: Announce,
    ) -> None:
        """Takes the directory, and makes it where it is missing; one that cannot be had is told.

        Args:
            name: the back end's, for people.
            directory: on tmpfs, and ours alone.
            found: what the guest has set, all that was noted included.
            announce: told of what is not kept.
        """
        self._name = name
        self._path = directory
        self._found = found
        self._announce = announce
        self._log: Log | None = None
        self._uid: int | None = None
        self._bases: Mapping[int, int] = {}
        self._may_be_recalled = True
        """What is set aside, if anything is."""
        try:
            self._directory: int | None = take_directory(directory, "state")
        except NoDirectory as error:
            self._directory = None
            announce(SettingsNotKept(name, str(error)))

    @property
    def directory(self) -> int | None:
        """Open until `close`; None where there is none."""
        return self._directory

    def close(self) -> None:
        """Leaves what is kept to the next process."""
        self._close_log()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def recall(self) -> Kept | None:
        """What an earlier process kept, if it did; what cannot be read is told and set aside."""
        if self._directory is None:
            return None
        try:
            kept = _read(_NAME, self._directory)
        except FileNotFoundError:
            return self._recall_aside(self._directory)
        except (BadFile, NoFile, OSError) as error:
            became = set_aside(_NAME, _SET_ASIDE, self._directory)
            reason = f"{self._path / _NAME} cannot be read ({why(error)}), and {became}"
            self._announce(SettingsUnreadable(self._name, reason))
            return None
        self._announce(SettingsRecalled(self._name, str(self._path)))
        return kept

    def _recall_aside(self, directory: int) -> Kept | None:
        """What an earlier process could not read, if this one can."""
        try:
            kept = _read(_SET_ASIDE, directory)
            os.rename(_SET_ASIDE, _NAME, src_dir_fd=directory, dst_dir_fd=directory)
        except (BadFile, NoFile, OSError):
            return None
        self._announce(SettingsRecalled(self._name, str(self._path)))
        return kept

    def begin(self, uid: int | None, bases: Mapping[int, int]) -> None:
        """Writes down what the guest has set, and keeps what it sets from now on.

        Args:
            uid: the front end's; None where it is the next one's, whoever that is.
            bases: where queues stand, by index.
        """
        self._close_log()
        self._supersede()
        self._uid, self._bases = uid, bases
        found = self._found()
        if self._directory is None or found is None:
            return
        if found.state is None:
            self._lose(f"no state can say it: {summary(found.problems)}")
            return
        whole = encode_file(found.state, found.missing, uid, bases)
        try:
            memory = write_file(_NAME, self._directory, whole, MAX_FILE, changing=CHANGING)
        except OSError as error:
            self._lose(why(error))
            return
        assert memory is not None
        self._log = Log(memory)

    def note(self, command: bytes) -> None:
        """A command was acknowledged, and `found` tells it; before the guest hears of it."""
        if self._log is not None and not self._log.note(command):
            self.begin(self._uid, self._bases)

    def forget(self) -> None:
        """There is nothing to be kept any more."""
        self._close_log()
        self._supersede()
        stays = self._why_it_stays()
        if stays is not None:
            self._announce(SettingsNotKept(self._name, stays))

    def _supersede(self) -> None:
        """A guest begins: what is set aside must not come back by itself."""
        if self._may_be_recalled and self._directory is not None:
            at = self._directory
            # What cannot be renamed is still not to come back.
            for leave in (
                partial(os.rename, _SET_ASIDE, _SUPERSEDED, src_dir_fd=at, dst_dir_fd=at),
                partial(os.unlink, _SET_ASIDE, dir_fd=at),
            ):
                with contextlib.suppress(OSError):
                    leave()
            self._may_be_recalled = False

    def _lose(self, reason: str) -> None:
        stays = self._why_it_stays()
        if stays is not None:
            reason = f"{reason}; {stays}"
        self._announce(SettingsNotKept(self._name, reason))

    def _why_it_stays(self) -> str | None:
        """Removes the file; what is told where that cannot be: the next process will recall it."""
        if self._directory is None:
            return None
        try:
            os.unlink(_NAME, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            return (
                f"what {self._path / _NAME} has is older and cannot be removed ({why(error)}); "
                "remove it before the next start"
            )
        return None

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


def _read(name: str, directory: int) -> Kept:
    """What a file has.

    Raises:
        BadFile, NoFile, OSError: it cannot be read.
    """
    return decode_file(read_file(name, directory, MAX_FILE + 1))
