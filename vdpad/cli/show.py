"""Results as text for people. One function a result, from its JSON to lines."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from vdpad.cli.layout import counted, fields, sentence, table, table_by_name
from vdpad.cli.terminal import printable

Json = Mapping[str, Any]

# Behind the first of them, none is answered any more as a rule.
_UNANSWERED_SHOWN = 8


def info(result: Json) -> str:
    """What the daemon is."""
    limits = fields((name, value) for name, value in result["limits"].items())
    return (
        f"{result['name']} {result['version']}, API {result['api']}\n"
        f"{sentence('targets: ' + ', '.join(result['targets']))}\n"
        f"{sentence('formats: ' + ', '.join(result['formats']))}\n\n{limits}"
    )


def devices(result: Sequence[Json]) -> str:
    """The host's vDPA devices, and below each its features."""
    if not result:
        return "This host has no vDPA devices."
    rows = (
        (
            each["name"],
            each["mgmtdev"],
            each["driver"] or "none",
            each["node"] or "",
            " ".join(f"{name}={value}" for name, value in (each["config"] or {}).items()),
        )
        for each in result
    )
    listed = table(rows, "device", "mgmtdev", "driver", "node", "config")
    features = (sentence(f"{each['name']}: {', '.join(each['features'])}") for each in result)
    return "\n\n".join([listed, *features])


def released(result: Json) -> str:
    """Nothing came of it but that it is done."""
    return "The device was given back, and is reset."


def check(result: Json) -> str:
    """Whether a state fits, and what would be sent."""
    if not result["compatible"]:
        return f"The device cannot take this state.\n\n{problems(result['problems'])}"
    if not result["commands"]:
        nothing = sentence("The device takes this state, which needs no command.", indent="")
        return nothing + _widened(result)
    steps = table(((step["command"], step["count"]) for step in result["plan"]), "command", "count")
    fits = sentence(
        f"The device takes this state: {counted(result['commands'], 'command')}, "
        f"at most {counted(result['doorbells'], 'doorbell')}.",
        indent="",
    )
    return f"{fits}\n\n{steps}{_widened(result)}"


def problems(found: Iterable[Json], to: TextIO | None = None) -> str:
    """What is wrong, by path; for standard output, or for another stream."""
    rows = ((each["path"], each["code"], each["message"]) for each in found)
    return table(rows, "path", "code", "problem", to=to)


def operation(result: Json) -> str:
    """An operation and, where it has one, its report."""
    lines = fields(
        [
            ("migration", result["migration"]),
            ("state", result["state"]),
            ("target", _target(result["target"])),
            ("commands", result["commands"]),
            ("doorbells", f"at most {result['doorbells']}"),
            ("prepared in", _us(result["prepare_us"])),
            ("digest", result["digest"]),
        ]
    )
    told = result["report"]
    return lines + (_widened(result) if told is None else f"\n\n{report(told)}")


def status(result: Json) -> str:
    """One operation, or a line for each and whether there are more."""
    if "operations" not in result:
        return operation(result)
    listed = table_by_name(
        (
            (
                each["migration"],
                each["state"],
                each["outcome"] or "",
                _target(each["target"]),
                each["commands"],
                _time(each["began"]),
                _age(each["began"]),
            )
            for each in result["operations"]
        ),
        *("migration", "state", "outcome", "target", "commands", "began", "age"),
        spare=("commands", "began", "outcome"),
    )
    if not result["more"]:
        return listed
    more = f"There are more: {len(result['operations'])} of {result['total']} are shown."
    return f"{listed}\n\n{sentence(f'{more} --limit, --failed and --since choose others.')}"


def change(summary: Json) -> str:
    """An operation as it is now, on one line."""
    at = summary["began"] if summary["state"] == "prepared" else summary["ended"]
    when = _time(at) if at else f"{datetime.now():{_TIME}}"
    told = [when, summary["migration"], summary["state"], summary["outcome"] or ""]
    told += [_target(summary["target"]), counted(summary["commands"], "command")]
    return printable("  ".join(filter(None, told)))


def report(result: Json) -> str:
    """What became of a restore."""
    ring = result["ring"]
    lines = fields(
        [
            ("outcome", result["outcome"]),
            ("migration", result["migration"]),
            ("applied", f"{result['applied']} of {counted(result['commands'], 'command')}"),
            ("doorbells", result["doorbells"]),
            ("prepared in", _us(result["prepare_us"])),
            ("committed in", _committed_in(result)),
            ("ring", _idle_ring(ring) if ring else _lost_ring(result)),
            ("device", "must be reset" if result["device_must_reset"] else "can be used"),
        ]
    )
    refused = _not_applied("refused", result["rejected"], result["rejected_total"])
    first = result["unanswered"][:_UNANSWERED_SHOWN]
    unanswered = _not_applied("unanswered", first, result["unanswered_total"])
    return lines + refused + unanswered + _widened(result) + noted(result)


def _idle_ring(ring: Json) -> str:
    wrap = ring.get("available_wrap")
    behind = "" if wrap is None else f", wrap counter {wrap}"
    return f"idle at {ring['next_available']}{behind}"


def _lost_ring(result: Json) -> str:
    return "the device has buffers" if result["device_must_reset"] else "nothing was sent"


def _committed_in(result: Json) -> str:
    return "unknown" if result["outcome"] == "interrupted" else _us(result["commit_us"])


def _not_applied(what: str, lines: Sequence[Json], total: int) -> str:
    if not total:
        return ""
    listed = table(
        ((line["index"], line["command"], line["arguments"]) for line in lines),
        "index",
        "command",
        "arguments",
    )
    more = f"\n… and {total - len(lines)} more" if total > len(lines) else ""
    return f"\n\n{total} {what}:\n{listed}{more}"


def _widened(result: Json) -> str:
    return "".join(f"\n\n{sentence(f'widened: {each}')}" for each in result["widened"])


def noted(result: Json) -> str:
    return "".join(f"\n\n{sentence(f'note: {each}')}" for each in result.get("notes", ()))


def _target(target: Json) -> str:
    name = target.get("name") or target.get("device") or target.get("path") or ""
    return f"{target['kind']} {name}".strip()


_TIME = "%Y-%m-%d %H:%M"


def _time(at: str | None) -> str:
    """A time of the API's as a clock on the wall shows it."""
    return "" if at is None else f"{datetime.fromisoformat(at).astimezone():{_TIME}}"


def _age(at: str | None) -> str:
    """How long ago that was, roughly."""
    if at is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _us(microseconds: int) -> str:
    return f"{microseconds / 1000:.3f} ms"
