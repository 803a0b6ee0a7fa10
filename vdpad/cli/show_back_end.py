"""What back ends answer as text for people."""

from collections.abc import Iterator, Sequence
from typing import Any

from vdpad.cli import show
from vdpad.cli.layout import fields, sentence, table
from vdpad.cli.show import Json
from vdpad.cli.show_state import settings
from vdpad.wire.addresses import BACK_ENDS

_HAS_A_GUEST = ("running", "failed")
_STOPPED = "The device is stopped: this is kept for a guest that goes on here."
_TRIED = "This was a trial: a guest that goes on here is given it when the device starts."
_GIVEN = "given when it last started, or tried since:"


def info(result: Json) -> str:
    """What it is."""
    seen = "are seen"
    if not result["provides_control_queue"]:
        seen = "are not seen, or no guest runs; status tells which"
    limits = fields((name, value) for name, value in result["limits"].items())
    return (
        f"{result['name']} of vdpad-vhost-user {result['version']}, API {result['api']}\n"
        f"{sentence('device: ' + result['device'])}\n"
        f"{sentence(f'the guest’s commands {seen}')}\n\n{limits}"
    )


def status(result: Json) -> str:
    """How it is."""
    whole = fields(_about(result))
    queues = table(
        (
            (each["index"], each["size"], each["base"], "yes" if each["enabled"] else "no")
            for each in result["queues"]
        ),
        *("queue", "size", "base", "enabled"),
    )
    parts = [whole, *([queues] if result["queues"] else [])]
    if result["report"] is not None:
        parts.append(f"{_GIVEN}\n{show.report(result['report'])}")
    return "\n\n".join(parts)


def _about(result: Json) -> Iterator[tuple[str, str]]:
    yield "phase", result["phase"]
    if "reason" in result:
        yield "reason", result["reason"]
    yield "device", result["device"]
    yield "front end", _front_end(result)
    yield "features", ", ".join(result["features"]) or "none"
    yield "commands", _commands(result)
    if result["logging"] is not None:
        yield "logging", _logging(result["logging"])


def _front_end(result: Json) -> str:
    front_end = result["front_end"]
    return f"process {front_end['pid']} of uid {front_end['uid']}" if front_end else "none"


def _commands(result: Json) -> str:
    if result["phase"] in _HAS_A_GUEST and "CTRL_VQ" not in result["features"]:
        return "not seen: the VMM keeps the control queue, or the guest’s driver took none"
    counts = result["commands"]
    return f"{counts['forwarded']}, of them {counts['refused']} refused"


def _logging(logging: Json) -> str:
    return f"{logging['way']}, {logging['pages']} pages marked so far"


def capture(result: Json) -> str:
    """What the guest has set."""
    if result["state"] is None:
        state = "No guest has set anything, or no state can say it."
    else:
        state = settings(result["state"])
    stopped = [] if result["running"] or result["state"] is None else [_STOPPED]
    missing = [sentence(f"missing: {each['part']}: {each['why']}") for each in result["missing"]]
    return "\n".join([state, *stopped, *missing])


def loaded(result: Json) -> str:
    """What a state that was loaded came to."""
    return f"{show.report(result)}\n\n{_TRIED}"


def switched(result: Json) -> str:
    """What a switch came to."""
    paused = f"the guest's queues stood still for {result['paused_us']} µs"
    if not result["paused_us"]:
        paused = "no guest ran: the device is in place for the next start"
    return f"{show.report(result)}\n\n{paused}"


def back_ends(result: Sequence[Json]) -> str:
    """A line for each."""
    if not result:
        return f"No back end has its sockets in {BACK_ENDS}. Ask others by --backend PATH."
    return table((_line(each) for each in result), "name", "phase", "device", "front end", "why")


def _line(each: Json) -> tuple[Any, ...]:
    found = each["status"]
    if found is None:
        return each["name"], "unreachable", "", "", each["why"]
    why = found.get("reason", "")
    return each["name"], found["phase"], found["device"], _front_end(found), why
