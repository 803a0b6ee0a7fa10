"""States as text for people, from the plain values that vdpad.cli.states gives."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from vdpad.cli.layout import filled
from vdpad.cli.show import Json, problems
from vdpad.cli.terminal import printable, width_of
from vdpad.state import wording
from vdpad.state.fields import runs
from vdpad.state.formats import native

# As much as is read with ease, and what there is where it is no terminal.
_WIDTH = 100
_INDENT = "  "
_LABEL = 14
_FORMATS = {
    "native": "a state in JSON",
    "qemu-stream": "a QEMU migration stream",
    "device-parts": "virtio device parts",
    "device-state": "a back end's device state",
    "command-log": "a log of a guest's commands",
    "capture": "what a back end has captured",
}

Row = tuple[str, str]
"""A label and what stands behind it."""


def decoded(result: Sequence[Json]) -> str:
    """What is in each file that could be read."""
    return "\n\n".join(_file(each) for each in result if "error" not in each)


def captured(result: Json) -> str:
    """The state alone, ready for a restore."""
    return native.layout(result["state"])


def converted(result: Json) -> str:
    """Nothing: what it was converted to is the output."""
    return ""


def compared(result: Json) -> str:
    """What differs, device by device."""
    if result["same"]:
        return "The states are the same."
    return "\n".join(line for each in result["devices"] for line in _differences(each, result))


def _differences(device: Json, result: Json) -> Iterator[str]:
    only = {"only-first": result["first"], "only-second": result["second"]}
    where = f"{device['device']}: " if device["device"] else ""
    for each in device["differences"]:
        path = f"{each['path']}: " if each["path"] else ""
        which = f"only in {only[each['kind']]}: " if each["kind"] in only else ""
        told = printable(f"{where}{path}{which}{each['what']}")
        yield _fill(told, "", _INDENT * 2)


def _file(result: Json) -> str:
    about = "".join(f", {name} {value}" for name, value in result["about"].items())
    head = printable(f"{result['file']}: {_FORMATS[result['format']]}{about}")
    devices = [_device(each) for each in result["devices"]] or ["no virtio-net device in it"]
    return "\n\n".join([head, *devices])


def _device(found: Json) -> str:
    lines: list[Row] = []
    if found["state"] is not None:
        lines.extend(_state(found["state"]))
    lines.extend(found["about"].items())
    lines.extend(("missing", f"{each['part']}: {each['why']}") for each in found["missing"])
    lines.extend(("note", each) for each in found["notes"])
    title = [printable(found["device"])] if found["device"] else []
    text = "\n".join([*title, *(_line(*each) for each in lines)])
    if found["state"] is None:
        text += f"\nThis is no valid state:\n{problems(found['problems'])}"
    return text.lstrip("\n")


def settings(state: Json) -> str:
    """A state's parts, a line or a few for each."""
    return "\n".join(_line(*each) for each in _state(state))


# --- a state, part by part ---


def _state(state: Json) -> Iterator[Row]:
    yield "features", ", ".join(state["features"]) or "none"
    if "mac" in state:
        yield "mac", state["mac"]
    if "rx" in state:
        yield "receives", _rx(state["rx"])
    if "mac_table" in state:
        yield from _mac_table(state["mac_table"])
    if "vlans" in state:
        yield "vlans", _vlans(state["vlans"])
    if "queue_pairs" in state:
        yield "queue pairs", str(state["queue_pairs"])
    if "rss" in state:
        yield from _rss(state["rss"])
    if "hash_report" in state:
        yield "hash report", ", ".join(state["hash_report"]["hash_types"]) or "no hash types"
        yield "hash key", state["hash_report"]["key"] or "none"
    if "hash_tunnel" in state:
        yield "hash tunnels", ", ".join(state["hash_tunnel"]["types"]) or "no tunnel types"
    if "guest_offloads" in state:
        yield "offloads", ", ".join(state["guest_offloads"]) or "none"
    if "coalescing" in state:
        yield from _coalescing(state["coalescing"])


def _rx(rx: Json) -> str:
    """What gets through, and which modes the state does not have."""
    if rx.get("promisc"):
        on = [mode for mode in rx if mode != "promisc" and rx[mode]]
        also = f"; also on: {', '.join(on)}" if on else ""
        told = f"everything (promisc){also}"
    else:
        told = "; ".join(
            (
                f"unicast: {_reach(rx, 'nouni', 'alluni', 'its own address and its table')}",
                f"multicast: {_reach(rx, 'nomulti', 'allmulti', 'its table')}",
                f"broadcast: {'none (nobcast)' if rx.get('nobcast') else 'all'}",
            )
        )
    absent = [mode for mode in _MODES if mode not in rx]
    return f"{told}; not told: {', '.join(absent)}" if absent else told


_MODES = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")


def _reach(rx: Json, closing: str, opening: str, normal: str) -> str:
    if rx.get(closing):
        return f"none ({closing})"
    return f"all ({opening})" if rx.get(opening) else normal


def _mac_table(table: Json) -> Iterator[Row]:
    for half in ("unicast", "multicast"):
        addresses = table[half]
        told = wording.count(len(addresses), "address", "addresses")
        if addresses:
            told += f": {wording.some(addresses)}"
        if table[f"{half}_overflow"]:
            told += "; the table overflowed, so this is not all"
        yield half, told


def _vlans(entries: Sequence[Any]) -> str:
    ids = sum(1 if isinstance(each, int) else each[1] - each[0] + 1 for each in entries)
    return f"{wording.count(ids, 'id')}{': ' if entries else ''}{wording.ranges(entries)}"


def _rss(rss: Json) -> Iterator[Row]:
    table = rss["indirection_table"]
    queues = sorted(set(table))
    yield "rss", ", ".join(rss["hash_types"]) or "no hash types"
    yield (
        "rss table",
        f"{wording.count(len(table), 'entry', 'entries')} over "
        f"{wording.count(len(queues), 'queue')}: {wording.ranges(runs(queues))}",
    )
    yield (
        "rss queues",
        f"queue {rss['unclassified_queue']} for what has no hash; "
        f"{wording.count(rss['max_tx_queues'], 'transmit queue')}",
    )
    yield "rss key", rss["key"]


def _coalescing(coalescing: Json) -> Iterator[Row]:
    for direction in ("rx", "tx"):
        if direction in coalescing:
            yield f"coalesce {direction}", _moderation(coalescing[direction])
    queues = coalescing.get("queues", {})
    told = [f"queue {queue}: {_moderation(values)}" for queue, values in queues.items()]
    if told:
        yield "coalesce", wording.some(told)


def _moderation(values: Json) -> str:
    return f"{wording.count(values['max_packets'], 'packet')} or {values['max_usecs']} µs"


# --- lines ---


def _line(label: str, told: str) -> str:
    label = f"{_INDENT}{printable(label)}".ljust(_LABEL)
    return _fill(printable(told), f"{label} ", " " * (_LABEL + 1))


def _fill(text: str, first: str, others: str) -> str:
    width = min(width_of(sys.stdout) or _WIDTH, _WIDTH)
    return filled(text, width, others, first)
