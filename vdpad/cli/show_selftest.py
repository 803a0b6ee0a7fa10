"""A selftest's result as text for people."""

from collections import Counter
from collections.abc import Iterator, Sequence

from vdpad.cli.layout import counted, fields, sentence, table
from vdpad.cli.show import Json, noted

_ACKS = {0: "OK", 1: "ERR", None: "none"}
_PERCENTILES = ("p50", "p99", "batch p50", "p99")
_NONE_FOUND = "Nothing was found that a device should not do."


def selftest(result: Json) -> str:
    """What a device's CVQ does with each command, and what each case came to."""
    findings = [sentence(f"! {each}") for each in result["findings"]]
    parts = [
        _headed(result),
        _answers(result["commands"]),
        fields(_totals(result)),
        *_cases(result["cases"]),
        *(_changes(result["comparison"]) if "comparison" in result else ()),
        *(findings or [_NONE_FOUND]),
    ]
    return "\n\n".join(parts) + noted(result)


def _headed(result: Json) -> str:
    identity = result["identity"]
    made_on = [each for each in (identity["mgmtdev"], identity["parent_driver"]) if each]
    return "\n".join(
        [
            sentence(f"{result['node'] or identity['device']}, a ring of {result['ring_size']}"),
            sentence(
                f"{', '.join([identity['device'], *made_on])}; kernel {identity['kernel']}, "
                f"vdpad {identity['vdpad']}, {identity['date']}, {identity['seconds']:.1f} s"
            ),
            sentence(f"features: {', '.join(result['features'])}"),
        ]
    )


def _answers(commands: Sequence[Json]) -> str:
    rows = (
        (
            each["command"],
            each["arguments"],
            _ACKS[each["alone"]["ack"]],
            f"{each['alone']['us']:.0f}",
            _ACKS[each["batch"]["ack"]],
            _us(each["alone"]["p50_us"]),
            _us(each["alone"]["p99_us"]),
            _us(each["batch"]["p50_us"]),
            _us(each["batch"]["p99_us"]),
        )
        for each in commands
    )
    return table(rows, "command", "arguments", "alone", "µs", "in batch", *_PERCENTILES)


def _totals(result: Json) -> Iterator[Sequence[str]]:
    for what, key in (("one by one", "alone"), ("as one batch", "batch")):
        total = result[key]
        doorbells = counted(total["doorbells"], "doorbell")
        spread = (
            "not timed"
            if total["p50_us"] is None
            else f"p50 {_us(total['p50_us'])}, p99 {_us(total['p99_us'])} µs "
            f"of {counted(result['repeat'], 'round')}"
        )
        yield what, f"{total['us']:.0f} µs", doorbells, spread


def _us(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:.0f}"


def _cases(cases: Sequence[Json]) -> Iterator[str]:
    counts = Counter(each["verdict"] for each in cases)
    told = ", ".join(f"{counts[each]} {each}" for each in ("pass", "fail", "note"))
    yield sentence(
        f"{counted(len(cases), 'case')}: {told}, {counts['not-applicable']} not applicable"
    )
    rows = [
        (each["verdict"], each["id"], each["level"], each["clause"], "; ".join(each["seen"]))
        for each in cases
        if each["verdict"] in ("fail", "note")
    ]
    if rows:
        yield table(sorted(rows), "verdict", "case", "level", "virtio 1.4", "seen")


def _changes(comparison: Json) -> Iterator[str]:
    was = f"{comparison['device']}, {comparison['date']}, vdpad {comparison['vdpad']}"
    changed = [
        *(
            (how, each["id"], each["before"], each["now"])
            for how, key in (("worse", "worse"), ("better", "better"), ("other", "applicability"))
            for each in comparison[key]
        ),
        *(
            (how, each["id"], f"{each['before_us']:.0f} µs", f"{each['now_us']:.0f} µs")
            for how in ("slower", "faster")
            for each in comparison[how]
        ),
        *(("gone", each, "", "") for each in comparison["only_before"]),
        *(("new", each, "", "") for each in comparison["only_now"]),
    ]
    same = "" if changed else " no case and no time is another"
    yield sentence(f"compared with {was}:{same}")
    if changed:
        yield table(changed, "change", "case or command", "before", "now")
