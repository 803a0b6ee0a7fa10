"""A device's own address, beside those that it may show instead, where it outlives the process.

The file is there while the device may show another address than its own, and tells of that device
alone which is in use. It has nothing of a guest's settings, and stays when these are forgotten.
"""

import contextlib
import os
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from vdpad.backend.kept.addresses import MOST, Addresses
from vdpad.backend.process_events import AddressesUnreadable
from vdpad.errors import why
from vdpad.service.events.announcing import Announce
from vdpad.service.own_directory import NoFile, read_file, write_file
from vdpad.state.fields import MacAddress
from vdpad.state.problems import problems_of, summary
from vdpad.state.strict_model import StrictModel
from vdpad.virtio.mac import format_mac

_NAME = "device.addresses"

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
        if self._directory is None:
            return Addresses(shown)
        try:
            found = read_file(_NAME, self._directory, _MAX_FILE)
            kept = _File.model_validate_json(found)
        except FileNotFoundError:
            return Addresses(shown)
        except (OSError, NoFile, ValidationError) as error:
            self._tell_unreadable(shown, error)
            return Addresses(shown)
        return Addresses(kept.own, kept.given) if shown in kept.given else Addresses(shown)

    def keep(self, addresses: Addresses) -> None:
        """Keeps these from now on, and no more those of a device before."""
        if self._addresses is not None:
            self._addresses.changed = lambda: None
        self._addresses = addresses
        addresses.changed = self._write
        self._write()

    def _tell_unreadable(self, shown: bytes, error: Exception) -> None:
        reason = summary(problems_of(error)) if isinstance(error, ValidationError) else why(error)
        mac = format_mac(shown)
        self._announce(AddressesUnreadable(self._name, mac, f"{_NAME} cannot be read: {reason}"))

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
