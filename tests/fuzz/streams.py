"""States in files: the same out of a pipe as out of a file, and back again from their own JSON."""

import io
from typing import BinaryIO

from tests.support.pipe import Pipe
from vdpad.state.formats import native
from vdpad.state.formats.recognise import Reading, read
from vdpad.state.found import FormatError

# A reason repeats little of what it is about.
_LONGEST = 2000


def one(data: bytes) -> None:
    """A file, of whatever format."""
    of_file, of_pipe = _read(io.BytesIO(data)), _read(io.BufferedReader(Pipe(data)))
    if isinstance(of_file, Reading):
        assert of_pipe == of_file
        for each in of_file.devices:
            assert (each.state is None) == bool(each.problems)
            if each.state is not None:
                assert native.decode(native.encode(each.state)).state == each.state
    else:
        assert not isinstance(of_pipe, Reading)


def _read(stream: BinaryIO) -> Reading | str:
    try:
        return read(stream)
    except FormatError as error:
        told = str(error)
    assert len(told) < _LONGEST
    return told
