"""The commands on states that need no daemon: decode, capture, convert, diff.

Each takes the command line and gives its result as plain values, for --json and for show_state.
"""

import io
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vdpad.cli.failures import Usage
from vdpad.cli.progress import waiting
from vdpad.cli.state_files import choose, found_in, reading_of, remarks, state_of, to_json
from vdpad.cli.terminal import give_bytes, is_terminal, tell
from vdpad.errors import why
from vdpad.state.diff import differences
from vdpad.state.formats import native, recognise
from vdpad.state.formats.recognise import COMMAND_LOG, DEVICE_PARTS, NATIVE
from vdpad.state.found import FormatError, Found, Missing
from vdpad.state.model import NetState

Json = dict[str, Any]


def decode(arguments: Namespace) -> list[Json]:
    """What is in each file; of one that cannot be read, why not."""
    result = [_decoded(name) for name in arguments.files]
    if not arguments.json:
        for each in result:
            if "error" in each:
                tell(each["error"])
    return result


def _decoded(name: str) -> Json:
    try:
        reading = reading_of(name)
    except Usage as error:
        return {"file": name, "error": str(error)}
    return {
        "file": name,
        "format": reading.format,
        "about": dict(reading.about),
        "devices": [to_json(each) for each in reading.devices],
    }


def capture(arguments: Namespace) -> Json:
    """The state of a running QEMU's device.

    Raises:
        QmpError, FormatError: QEMU does not answer, or not as it is known to.
        Usage: there is no such device, the features must be given, or its state is none.
    """
    from vdpad.cli.capture import capture as ask_qemu

    with waiting("waiting for QEMU", arguments.timeout):
        found = ask_qemu(arguments.qmp, arguments.timeout, arguments.device, arguments.features)
    state_of(found, str(arguments.qmp))
    if not arguments.json:
        _remark(found.device, remarks(found))
    return to_json(found)


def convert(arguments: Namespace) -> Json:
    """A state in another format, written to a file or to standard output.

    Raises:
        Usage: the file holds no state or one too large for the format, or the output cannot be
            written.
        NotGiven: standard output takes no more.
    """
    if arguments.json and arguments.output is None:
        raise Usage("expected --output FILE with --json, as only one of both fits standard output")
    found = found_in(arguments.file, arguments.device)
    data, lost = _ENCODERS[arguments.to](state_of(found, arguments.file))
    _check_readable(arguments.file, arguments.to, data)
    left_open = [*remarks(found), *(f"lost: {each.part}: {each.why}" for each in lost)]
    _write(arguments.output, data, is_text=arguments.to == NATIVE)
    if not arguments.json:
        _remark(arguments.file, left_open)
    told = to_json(found)
    return {
        "format": arguments.to,
        "bytes": len(data),
        "lost": [asdict(each) for each in lost],
        **{key: told[key] for key in ("device", "missing", "notes")},
    }


def _check_readable(name: str, form: str, data: bytes) -> None:
    """Formats have bounds of their own: what fits one may be more than another's reader takes."""
    try:
        recognise.read(io.BytesIO(data))
    except FormatError as error:
        raise Usage(f"{name}: its state does not fit the format {form}: {error}") from error


def _encode_native(state: NetState) -> tuple[bytes, Sequence[Missing]]:
    return native.encode(state), ()


def _encode_parts(state: NetState) -> tuple[bytes, Sequence[Missing]]:
    from vdpad.state.formats import device_parts

    encoded = device_parts.encode(state)
    return encoded.data, encoded.missing


def _encode_log(state: NetState) -> tuple[bytes, Sequence[Missing]]:
    from vdpad.state.formats import command_log

    return command_log.encode(state), ()


_ENCODERS: dict[str, Callable[[NetState], tuple[bytes, Sequence[Missing]]]] = {
    NATIVE: _encode_native,
    DEVICE_PARTS: _encode_parts,
    COMMAND_LOG: _encode_log,
}


def _write(output: str | None, data: bytes, *, is_text: bool) -> None:
    if output is None:
        if not is_text and is_terminal(sys.stdout):
            raise Usage("this is binary, and standard output a terminal: expected --output FILE")
        give_bytes(data)
        return
    try:
        Path(output).write_bytes(data)
    except OSError as error:
        raise Usage(f"{output}: {why(error)}") from error


def _remark(what: str, lines: Sequence[str]) -> None:
    for line in lines:
        tell(f"{what}: {line}")


# --- diff ---


def diff(arguments: Namespace) -> Json:
    """What two files' states differ in, device by device where both hold several.

    Raises:
        Usage: one of them holds no state, or it is not clear which device's is meant.
    """
    first, second = (reading_of(name).devices for name in (arguments.first, arguments.second))
    if arguments.device is None and len(first) > 1 and len(second) > 1:
        names = dict.fromkeys(each.device for each in (*first, *second))
        pairs = [
            (_named(first, name, arguments.first), _named(second, name, arguments.second))
            for name in names
        ]
    else:
        pairs = [
            (
                choose(first, arguments.device, arguments.first),
                choose(second, arguments.device, arguments.second),
            )
        ]
    devices = [_compared(arguments, a, b) for a, b in pairs]
    return {
        "first": arguments.first,
        "second": arguments.second,
        "same": not any(each["differences"] for each in devices),
        "devices": devices,
    }


def _named(devices: Sequence[Found], device: str, name: str) -> Found | None:
    """The device of this name, or None where there is none."""
    there = any(each.device == device for each in devices)
    return choose(devices, device, name) if there else None


def _compared(arguments: Namespace, first: Found | None, second: Found | None) -> Json:
    named = next((each.device for each in (first, second) if each and each.device), "")
    if first is None or second is None:
        kind = "only-second" if first is None else "only-first"
        found = [{"path": "", "kind": kind, "what": "the whole device"}]
    else:
        states = state_of(first, arguments.first), state_of(second, arguments.second)
        found = [asdict(each) for each in differences(*states)]
    return {"device": named, "differences": found}
