"""A result as plain values, and back; its schema is published."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.results import ANSWERED, outcome, self_test
from vdpad.conformance.answers import CommandOutcome
from vdpad.conformance.case import Verdict
from vdpad.conformance.schema import selftest_schema
from vdpad.conformance.self_test import NoSelfTest, SelfTest, read_self_test
from vdpad.virtio.commands import VlanDel

DOCS = Path(__file__).parents[2] / "docs"


def plain(result: SelfTest) -> dict[str, Any]:
    """As `--json` prints it."""
    return result.model_dump(mode="json", exclude={"comparison"})


def test_the_published_schema_is_up_to_date() -> None:
    published = (DOCS / "selftest.schema.json").read_text(encoding="utf-8")
    assert published == selftest_schema(), "run `make schema` to renew it"


def test_what_was_always_told_still_is() -> None:
    told = plain(self_test(answers=[ANSWERED, CommandOutcome(VlanDel(9), 1, 3.0, None)]))
    assert told["node"] == "/dev/vhost-vdpa-0"
    assert told["features"] == ["CTRL_VQ", "CTRL_VLAN"]
    assert told["ring_size"] == 64
    assert [(each["command"], each["arguments"]) for each in told["commands"]] == [
        ("VLAN_ADD", "vid=1"),
        ("VLAN_DEL", "vid=9"),
    ]
    first, second = told["commands"]
    assert (first["alone"]["ack"], first["alone"]["us"], first["batch"]["ack"]) == (0, 12.0, 0)
    assert (second["alone"]["ack"], second["batch"]["ack"]) == (1, None)
    assert (told["alone"]["us"], told["alone"]["doorbells"]) == (15.0, 2)
    assert (told["batch"]["us"], told["batch"]["doorbells"]) == (5.0, 1)
    assert (told["findings"], told["notes"]) == ([], [])


def test_a_time_without_end_is_none() -> None:
    told = self_test().model_dump_json()
    for time in ('"p50_us":10.0', '"us":12.0', '"seconds":1.5'):
        assert time in told
        with pytest.raises(NoSelfTest, match="finite"):
            read_self_test(told.replace(time, f"{time.partition(':')[0]}:1e999").encode())


def test_who_was_tested_with_what_and_when() -> None:
    identity = plain(self_test())["identity"]
    assert identity.pop("kernel")
    assert identity.pop("vdpad")
    assert identity == {
        "device": "vdpa0",
        "parent_driver": "mlx5_core",
        "mgmtdev": "auxiliary/mlx5_core.sf.2",
        "date": "2026-11-28T09:30:00Z",
        "seconds": 1.5,
        "offered": ["CTRL_VQ", "CTRL_VLAN", "IN_ORDER"],
    }


def test_what_fails_is_a_finding_once_and_a_note_is_none() -> None:
    result = self_test(
        outcome("used.once", Verdict.FAIL, "twice"),
        outcome("used.id", Verdict.FAIL, "twice", "strange"),
        outcome("used.order", Verdict.NOTE, "reversed"),
        outcome("vlan-add.zero", Verdict.NOT_APPLICABLE, "without CTRL_VLAN"),
        outcome("ring.full"),
        faults=("an id",),
    )
    assert result.findings == (
        "the device broke the rules of the ring: an id",
        "twice",
        "strange",
    )
    told = plain(result)["cases"][2]
    assert told["verdict"] == "note"
    assert (told["id"], told["level"], told["seen"]) == ("used.order", "SHOULD", ["reversed"])


def test_a_result_is_read_as_it_was_printed() -> None:
    result = self_test(outcome("used.order", Verdict.NOTE, "reversed"))
    assert read_self_test(json.dumps(plain(result)).encode()) == result


def test_times_may_be_missing() -> None:
    result = self_test(spread=None)
    assert (result.repeat, result.alone.p50_us, result.commands[0].alone.p99_us) == (0, None, None)
    assert result.commands[0].batch.p50_us is None
    assert read_self_test(json.dumps(plain(result)).encode()) == result


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"error": {}}', b"\xff"])
def test_what_is_no_result(data: bytes) -> None:
    with pytest.raises(NoSelfTest, match="expected what `vdpactl selftest --json` printed"):
        read_self_test(data)


def test_a_result_with_another_s_values_is_none() -> None:
    told = plain(self_test(outcome("ring.full")))
    told["cases"][0]["verdict"] = "great"
    with pytest.raises(NoSelfTest, match=r"cases\.0\.verdict"):
        read_self_test(json.dumps(told).encode())
