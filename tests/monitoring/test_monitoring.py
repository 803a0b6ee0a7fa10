"""Alerts and the dashboard ask for what there is, and alerts come when they must."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import ROOT, fetched, run
from tests.support.metrics import labels_by_name, of_a_back_end, of_a_daemon
from tests.support.pages import quoted, table

HERE = Path(__file__).parent
MONITORING = ROOT / "config" / "monitoring"
RULES = MONITORING / "vdpad.rules.yml"
UNIT_TESTS = HERE / "vdpad.rules.test.yml"
DASHBOARD = json.loads((MONITORING / "vdpad.dashboard.json").read_text())
PANELS = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
QUERIES = [(each["title"], its["expr"]) for each in PANELS for its in each["targets"]]

# What Grafana puts for these.
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*", "$device": ".*"}
GRID = 24

ALERT = r"^ +- alert: (\w+)\n"
SELECTOR = re.compile(r"\b((?:vdpad|node)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')

# What node_exporter has of the files.
FILES = ("/node-exporter/vdpad.prom", "/node-exporter/vdpad-net0.prom")


@pytest.fixture(scope="module")
def promtool() -> Path:
    return fetched("promtool")


def alerts() -> dict[str, str]:
    """Each alert and its expression."""
    blocks = re.split(ALERT, RULES.read_text(), flags=re.M)[1:]
    pairs = zip(blocks[::2], blocks[1::2], strict=True)
    return {name: re.split(r"^ +labels:", rest, flags=re.M)[0] for name, rest in pairs}


# --- alerts ---


def test_the_rules_are_well_made(promtool: Path) -> None:
    done = run(promtool, "check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_alerts_come_when_they_must(promtool: Path, tmp_path: Path) -> None:
    for each in (RULES, UNIT_TESTS):
        shutil.copy(each, tmp_path)
    done = run(promtool, "test", "rules", tmp_path / UNIT_TESTS.name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_that_comes_always_or_never_is_found(
    promtool: Path, tmp_path: Path, alert: str
) -> None:
    """Each has a place where it must come, and one where it must not."""
    shutil.copy(UNIT_TESTS, tmp_path)
    at = rf"(- alert: {alert}\n)(?:(?!^ +(?:for|labels):).*\n)*"
    for wrong in ("vector(0) == 1", "vector(1)"):
        changed, count = re.subn(at, rf"\1        expr: {wrong}\n", RULES.read_text(), flags=re.M)
        assert count == 1
        (tmp_path / RULES.name).write_text(changed)
        done = run(promtool, "test", "rules", tmp_path / UNIT_TESTS.name)
        assert done.returncode != 0
        assert alert in done.stdout + done.stderr


def test_every_alert_is_told_with_its_severity() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    told = {
        name: severity
        for names, severity, _ in table(page, "alert", "severity", "when")
        for name in quoted(names)
    }
    assert told == dict(re.findall(ALERT + r"(?s:.*?)severity: (\w+)", RULES.read_text(), re.M))


# --- what they ask for ---


def series() -> Iterator[dict[str, str]]:
    """All that there is, as promtool's unit tests write it: counters grow, gauges stay."""
    for family in chain(of_a_daemon(), of_a_back_end()):
        grows = family.type in ("counter", "histogram")
        for sample in family.samples:
            labels = {"instance": "a", **sample.labels}
            yield _series(sample.name, labels, f"{sample.value}+{int(grows)}x60")
    for file in FILES:
        yield _series("node_textfile_mtime_seconds", {"instance": "a", "file": file}, "0+60x60")


def _series(name: str, labels: dict[str, str], values: str) -> dict[str, str]:
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def assert_find_something(promtool: Path, folder: Path, queries: list[str]) -> None:
    """Each query has a result on these series."""
    test = {
        "interval": "1m",
        "input_series": list(series()),
        "promql_expr_test": [
            {
                "expr": f"count({query}) > bool 0",
                "eval_time": "1h",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
            for query in queries
        ],
    }
    file = folder / "test.json"  # JSON is YAML
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
    done = run(promtool, "test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def as_asked(query: str) -> str:
    """A panel's query as Grafana sends it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def test_the_dashboard_s_queries_find_something(promtool: Path, tmp_path: Path) -> None:
    assert_find_something(promtool, tmp_path, [as_asked(query) for _, query in QUERIES])


def test_a_query_that_finds_nothing_is_found(promtool: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="vdpad_kept_devices"):
        assert_find_something(promtool, tmp_path, ['vdpad_kept_devices{instance="b"}'])


def selectors(text: str) -> set[str]:
    """What is asked for, with each of a matcher's alternatives by itself."""
    found = set()
    for name, matchers in SELECTOR.findall(text):
        if not matchers or name.startswith("node_"):
            found.add(name)
        for label, how, value in MATCHER.findall(matchers):
            values = value.split("|") if how == "=~" else [value]
            found.update(f'{name}{{{label}{how}"{each}"}}' for each in values)
    return found


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_s_metrics_labels_and_values_are_there(
    promtool: Path, tmp_path: Path, alert: str
) -> None:
    asked = selectors(alerts()[alert])
    assert asked
    # A back end that runs has not failed.
    queries = sorted(asked - {'vdpad_back_end_phase{phase="failed"}'})
    assert_find_something(promtool, tmp_path, queries or ["vdpad_back_end_phase"])


# --- the dashboard ---


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for _, query in QUERIES for name, _ in SELECTOR.findall(query)}
    there = labels_by_name(chain(of_a_daemon(), of_a_back_end()))
    assert {name.removesuffix("_bucket") for name in shown} == set(there)


def test_the_variables_are_those_that_queries_use() -> None:
    defined = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__range"} == defined
    sources = {each["datasource"]["uid"] for each in PANELS}
    assert sources == {"${datasource}"}


def test_no_panel_lies_on_another() -> None:
    def places(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            assert x < GRID
            yield from ((x, y) for y in range(at["y"], at["y"] + at["h"]))

    taken = Counter(chain.from_iterable(map(places, DASHBOARD["panels"])))
    assert set(taken.values()) == {1}
    ids = [each["id"] for each in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_panel_says_what_it_shows() -> None:
    assert all(each["title"] and each["description"] for each in PANELS)


def test_back_ends_of_one_name_on_two_hosts_are_told_apart() -> None:
    for each in PANELS:
        for its in each["targets"]:
            if re.search(r"by \([^)]*\bdevice\b", its["expr"]):
                assert "by (device" not in its["expr"], each["title"]
                assert its["legendFormat"].startswith("{{instance}} {{device}}"), each["title"]


def test_a_panel_has_rates_or_counts() -> None:
    """One axis has one unit."""
    for each in PANELS:
        units = {"rate(" in its["expr"] for its in each["targets"]}
        assert len(units) == 1, each["title"]
