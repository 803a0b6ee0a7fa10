"""How long devices' sections are, which only the description at the stream's end tells.

A file's is read before the first of them. Of a pipe all that follows is held for it, which is
little once the memory has passed. Before that there may be sections too, such as virtio-mem's: if
what follows is too much to be held, such a section is taken to end where its footer seems to stand.
That is no more than a guess, since a guest may write into such a section what looks like its
footer. So nothing of it is used, and the description, once it is there, must say the same of it.
"""

from typing import BinaryIO

from vdpad.state.formats.qemu.description import (
    MAX_DESCRIPTION,
    VIRTIO_NET,
    Described,
    Description,
    description_at_end,
)
from vdpad.state.formats.qemu.source import Source
from vdpad.state.found import FormatError

FOOTER = 0x7E

# What MAX_DESCRIPTION describes is no longer than it. Stops a pipe from being held whole.
_MAX_HELD = 2 * MAX_DESCRIPTION

# virtio-mem has a bit for each block: 1 MiB for 16 TiB in blocks of 2 MiB.
_MAX_GUESSED = 2 << 20
# Each virtio-mem device has one. Stops a pipe without an end from filling memory.
_MAX_GUESSES = 256


class Lengths:
    """What is known of one stream's sections, and what was guessed."""

    def __init__(self) -> None:
        self._description: Description | None = None
        self._too_much = False
        """What follows is more than can be held, the memory with it."""
        self._guesses: list[tuple[str, int, int, FormatError]] = []
        """A section's name, instance and length; and what to raise if that is wrong."""

    @property
    def description(self) -> Description:
        """The description, once `learn` has had it."""
        assert self._description is not None
        return self._description

    def learn(self, source: Source, *, memory_passed: bool) -> BinaryIO | None:
        """Reads the description, if it can be had here, and holds what was guessed against it.

        Args:
            source: where the walk is.
            memory_passed: nothing but devices follows.

        Returns what follows, as a file; None where that is too much to be held, memory and all.

        Raises:
            FormatError: there is no description, it says otherwise than was guessed, or devices
                alone are too much.
        """
        if self._too_much and not memory_passed:
            return None
        stream = source.held(_MAX_HELD)
        if stream is not None:
            self._description = description_at_end(stream)
            self._check_guesses()
        elif memory_passed:
            text = f"at most {_MAX_HELD} bytes of devices behind the guest's memory, as in a file"
            raise source.wrong(text, "more")
        self._too_much = stream is None
        return stream

    def of(self, name: str, instance: int, source: Source) -> Described:
        """What the description says of a section.

        Raises:
            FormatError: nothing.
        """
        described = self.description.devices.get((name, instance))
        if described is None:
            raise source.wrong("a section that the description has", f"{name!r}")
        return described

    def skip_guessed(self, name: str, instance: int, number: int, source: Source) -> None:
        """Passes over a section of a pipe up to where its footer seems to stand.

        Raises:
            FormatError: it stands nowhere near, or there are too many such sections.
        """
        if len(self._guesses) == _MAX_GUESSES:
            raise source.wrong(f"at most {_MAX_GUESSES} sections before the memory", "more")
        footer = bytes([FOOTER]) + number.to_bytes(4, "big")
        length = source.ahead(_MAX_GUESSED).find(footer)
        if length < 0:
            raise source.wrong(f"the section's footer within {_MAX_GUESSED} bytes", "none")
        wrong = source.wrong("a section that ends where its footer seems to stand", "another")
        self._guesses.append((name, instance, length, wrong))
        source.take(length, "a section")

    def doubted(self, error: FormatError) -> FormatError:
        """The error to raise for one that may come of a wrong guess."""
        if not self._guesses or self._description is not None:
            return error
        return FormatError(f"{error}; {_ADVICE}")

    def _check_guesses(self) -> None:
        for name, instance, length, wrong in self._guesses:
            described = self.description.devices.get((name, instance))
            # What is looked for must not have been passed over either.
            if described is None or described.size != length or described.kind == VIRTIO_NET:
                raise FormatError(f"{wrong}; {_ADVICE}")


_ADVICE = "a pipe does not tell how long the sections before the memory are, so read it from a file"
