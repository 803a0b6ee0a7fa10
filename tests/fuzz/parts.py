"""virtio device parts: a state that comes out of some goes into others, and comes out again."""

from contextlib import suppress

from vdpad.state.formats import device_parts, native
from vdpad.state.found import FormatError


def one(data: bytes) -> None:
    """A file with parts."""
    with suppress(FormatError):
        found = device_parts.decode(data)
        if found.state is None:
            assert found.problems
            return
        assert native.decode(native.encode(found.state)).state == found.state
        encoded = device_parts.encode(found.state)
        if not encoded.missing:
            assert device_parts.decode(encoded.data).state == found.state
