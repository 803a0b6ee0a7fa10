"""A device's own address, beside those that it may show instead, where it outlives the process.

The file is there while the device may show another address than its own, and tells of that device
alone which is in use. It has nothing of a guest's settings, and stays when these are forgotten. One
that cannot be read may be another version's: it is set aside for the next process that can.
"""

import contextlib
import os
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from vdpad.backend.kept.addresses import MOST, Addresses
from vdpad.backend.process_events import AddressesUnreadable
from vdpad.errors import why
from vdpad.service.events.announcing import Announce
from vdpad.service.own_directory import NoFile, read_file, set_aside, write_file
from vdpad.state.fields import MacAddress
from vdpad.state.problems import problems_of, summary
from vdpad.state.strict_model import StrictModel
from vdpad.virtio.mac import format_mac

_NAME = "device.addresses"
_SET_ASIDE = "device.unreadable"

# Stops a foreign file from filling memory.
_MAX_FILE = 4096


class _File(StrictModel):
    version: Literal[1]
    own: MacAddress
    given: Annotated[tuple[MacAddress, ...], Field(max_length=MOST)]


class KeptAddresses:
    """Those of the device in use, in a back end's directory."""

    def __init__(self, name: str, directory: int | None, announce: Announce) -> None:
        """
        Args:
            name: the back end's, for people.
            directory: open, and ours alone, until its owner closes it; None where there is none.
            announce: told of a file that cannot be read.
        """
        self._name = name
        self._directory = directory
        self._announce = announce
        self._addresses: Addresses | None = None

    def recall(self, shown: bytes) -> Addresses:
        """Those of a device that shows this one after a reset, by what an earlier process kept.

        A file that cannot be read is told, and tells nothing: then it is the device's own.
        """
        kept = None if self._directory is None else self._kept(self._directory, shown)
        if kept is None or shown not in kept.given:
            return Addresses(shown)
        return Addresses(kept.own, kept.given)

    def _kept(self, directory: int, shown: bytes) -> _File | None:
        try:
            return _read(_NAME, directory)
        except FileNotFoundError:
            return _kept_aside(directory)
        except (OSError, NoFile, ValidationError) as error:
            self._tell_unreadable(shown, error, set_aside(_NAME, _SET_ASIDE, directory))
            return None

    def keep(self, addresses: Addresses) -> None:
        """Keeps these from now on, and no more those of a device before."""
        if self._addresses is not None:
            self._addresses.changed = lambda: None
        self._addresses = addresses
        addresses.changed = self._write
        self._write()

    def _tell_unreadable(self, shown: bytes, error: Exception, became: str) -> None:
        said = summary(problems_of(error)) if isinstance(error, ValidationError) else why(error)
        reason = f"{_NAME} cannot be read: {said}; it {became}"
        self._announce(AddressesUnreadable(self._name, format_mac(shown), reason))

    def _write(self) -> None:
        assert self._addresses is not None
        if self._directory is None:
            return
        # What the directory does not take is told of the settings (kept_state.py).
        with contextlib.suppress(OSError):
            if not self._addresses.given:
                os.unlink(_NAME, dir_fd=self._directory)
                return
            kept = _File(version=1, own=self._addresses.own, given=self._addresses.given)
            text = kept.model_dump_json()
            write_file(_NAME, self._directory, text.encode(), _MAX_FILE)


def _read(name: str, directory: int) -> _File:
    """What a file has.

    Raises:
        NoFile, OSError, ValidationError: it cannot be read.
    """
    return _File.model_validate_json(read_file(name, directory, _MAX_FILE))


def _kept_aside(directory: int) -> _File | None:
    """What an earlier process could not read, if this one can; once."""
    try:
        kept = _read(_SET_ASIDE, directory)
        os.unlink(_SET_ASIDE, dir_fd=directory)
    except (OSError, NoFile, ValidationError):
        return None
    return kept
