"""How a selftest ends, and what people are shown of it.

What is tested, and what is made of the answers: tests/conformance. On devices, see tests/vm.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.results import outcome, self_test
from tests.daemon.support import is_error
from tests.support.forker import forker_of
from vdpad.cli import selftest, show_selftest, vdpactl
from vdpad.conformance import suite
from vdpad.conformance.case import Verdict
from vdpad.conformance.cases.table import CASES
from vdpad.conformance.comparison import compared
from vdpad.conformance.device_under_test import DeviceUnderTest
from vdpad.conformance.self_test import MAX_SIZE, SelfTest
from vdpad.conformance.suite import Run
from vdpad.conformance.timing import Spread
from vdpad.errors import VdpadError
from vdpad.host import sysfs
from vdpad.host.sysfs import Holder
from vdpad.queues.vhost_vdpa.errors import (
    DeviceRefused,
    MemoryLimit,
    NoControlQueue,
    NodeBusy,
    NoNetworkDevice,
    NoSuchNode,
    NotPermitted,
    VhostVdpaError,
)
from vdpad.queues.vhost_vdpa.memory import NoMemory

# --- what people are shown ---


def shown(result: SelfTest) -> str:
    """As text."""
    return show_selftest.selftest(result.model_dump(mode="json", exclude_none=True))


def test_lengths_that_no_ack_has_are_a_note_and_no_finding() -> None:
    note = "5 of 8 commands came back with a used length of 0, 2, and an ack is 1 byte"
    told = self_test(notes=(note,))
    assert told.findings == ()
    text = shown(told)
    assert text.endswith(f"Nothing was found that a device should not do.\n\nnote: {note}")


def test_who_was_tested_and_what_each_case_came_to() -> None:
    text = shown(
        self_test(
            outcome("ring.full"),
            outcome("used.order", Verdict.NOTE, "reversed"),
            outcome("used.once", Verdict.FAIL, "chain 4 came back 2 times"),
            outcome("vlan-add.zero", Verdict.NOT_APPLICABLE, "without CTRL_VLAN"),
        )
    )
    assert text.startswith("/dev/vhost-vdpa-0, a ring of 64\nvdpa0, auxiliary/mlx5_core.sf.2, ")
    assert "4 cases: 1 pass, 1 fail, 1 note, 1 not applicable" in text
    failed, noted = (line for line in text.splitlines() if line.startswith(("fail", "note")))
    assert failed.split()[:3] == ["fail", "used.once", "MUST"]
    assert noted.endswith("reversed")
    assert "ring.full" not in text
    assert text.endswith("\n\n! chain 4 came back 2 times")


def test_an_earlier_result_tells_a_terminal_nothing() -> None:
    case = self_test(outcome("ring.full")).cases[0].model_copy(update={"id": "a\x1b[2Jb\nc"})
    before = self_test().model_copy(update={"cases": (case,)})
    identity = before.identity.model_copy(update={"device": "\x1b]0;vdpa0\x07"})
    before = before.model_copy(update={"identity": identity})
    now = self_test()
    text = shown(now.model_copy(update={"comparison": compared(before, now)}))
    assert "a?[2Jb?c" in text
    assert text.replace("\n", "").isprintable()


def test_what_has_changed() -> None:
    before = self_test(outcome("ring.full"), outcome("ring.wrap"))
    now = self_test(outcome("ring.full", Verdict.FAIL, "1 of 32: refused"), outcome("used.all"))
    slower = now.model_copy(update={"comparison": compared(self_test(spread=Spread(1, 2)), now)})
    changed = now.model_copy(update={"comparison": compared(before, now)})
    rows = {line.partition("  ")[0]: line.split() for line in shown(changed).splitlines()}
    assert rows["worse"] == ["worse", "ring.full", "pass", "fail"]
    assert (rows["gone"], rows["new"]) == (["gone", "ring.wrap"], ["new", "used.all"])
    assert ["slower", "alone"] in [line.split()[:2] for line in shown(slower).splitlines()]
    without = self_test(outcome("ring.full", Verdict.NOT_APPLICABLE, "without CTRL_VLAN"))
    other = without.model_copy(update={"comparison": compared(before, without)})
    split = [line.split() for line in shown(other).splitlines()]
    assert ["other", "ring.full", "pass", "not-applicable"] in split
    same = before.model_copy(update={"comparison": compared(before, before)})
    assert "no case and no time is another" in shown(same)


# --- how it ends ---


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node of a device that is there, though nothing is behind it."""
    node = tmp_path / "vhost-vdpa-0"
    node.touch(0o660)
    monkeypatch.setattr(sysfs, "node_of", {"vdpa0": node}.get)
    monkeypatch.setattr(sysfs, "holders_of", lambda path: (Holder(7, "qemu"),))
    return node


def ends_with(monkeypatch: pytest.MonkeyPatch, error: VdpadError) -> None:
    async def run(device: DeviceUnderTest, cases: object, **options: object) -> Run:
        raise error

    monkeypatch.setattr(suite, "run", run)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (NoSuchNode("gone"), "no-such-device", 9),
        (NoControlQueue(frozenset()), "no-such-device", 9),
        (NoNetworkDevice("a disk"), "no-such-device", 9),
        (DeviceRefused("no"), "device-broken", 8),
        (VhostVdpaError("no"), "device-broken", 8),
        (NodeBusy("no"), "busy", 10),
        (NotPermitted("no"), "not-allowed", 1),
        (MemoryLimit("no"), "not-allowed", 1),
        (NoMemory("no"), "overloaded", 1),
        (VdpadError("no"), "internal", 1),
    ],
)
@pytest.mark.usefixtures("device")
def test_a_device_that_cannot_be_tested(
    error: VdpadError,
    kind: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends_with(monkeypatch, error)
    assert vdpactl.main(["selftest", "vdpa0"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"vdpactl: {kind}: vdpa0")
    assert len(shown.err.splitlines()) == 1
    assert vdpactl.main(["selftest", "vdpa0", "--json"]) == code
    shown = capsys.readouterr()
    assert shown.err == ""
    told = json.loads(shown.out)["error"]
    assert is_error(told, kind, *(["holders"] if kind == "busy" else []))
    if kind == "busy":
        assert told["message"] == "vdpa0 is in use by qemu (pid 7)"
        assert told["data"]["holders"] == [{"pid": 7, "command": "qemu"}]


def test_who_may_not_open_it_is_told_who_may(
    device: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_with(monkeypatch, NotPermitted("no"))
    os.chmod(device, 0o660)
    vdpactl.main(["selftest", "vdpa0"])
    shown = capsys.readouterr().err
    assert (
        f"it is for the user {device.owner()} and the group {device.group()} (mode 0660)" in shown
    )


@pytest.mark.usefixtures("device")
def test_no_device_of_this_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vdpactl.main(["selftest", "vdpa9"]) == 9
    assert vdpactl.main(["selftest", "/dev/null"]) == 9
    monkeypatch.undo()
    assert vdpactl.main(["selftest", "vdpa9"]) == 9
    assert vdpactl.main(["-j", "selftest", ".."]) == 9
    assert json.loads(capsys.readouterr().out)["error"]["data"] == {"kind": "no-such-device"}


@pytest.mark.parametrize(
    ("told", "code", "finding"),
    [
        ({}, 0, None),
        ({"faults": {"3": "err"}}, 8, "refused, though the device offers"),
        ({"faults": {"2": "id-twice"}}, 8, "broke the rules of the ring"),
    ],
    ids=["behaves", "err", "id-twice"],
)
def test_a_device_that_was_tested(told: dict[str, Any], code: int, finding: str | None) -> None:
    tests = forker_of("tests.cli.software_selftest")
    done = tests.text(json.dumps(told), "selftest", "vdpa0", timeout=120)
    assert (done.returncode, done.stderr) == (code, "")
    assert finding is None or f"{finding}" in done.stdout.partition("\n! ")[2]
    # The same once more, without the case that has nine of ten commands.
    told = {**told, "without": ["ring.index-wrap"]}
    done = tests.text(json.dumps(told), "selftest", "vdpa0", "--json", timeout=120)
    assert (done.returncode, done.stderr) == (code, "")
    findings = json.loads(done.stdout)["findings"]
    assert findings == [] if finding is None else any(finding in each for each in findings)


# --- on a software device, and against an earlier result ---

MISBEHAVES = """
[[software]]
name = "good"

[[software]]
name = "bad"
misbehave.faults = { 3 = "strange-ack" }
"""


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """A file of settings with a device that behaves and one that does not."""
    file = tmp_path / "vdpad.toml"
    file.write_text(MISBEHAVES)
    return str(file)


def ran(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> dict[str, Any]:
    """The result of a test that ends so."""
    assert vdpactl.main(["selftest", "--json", "--repeat", "1", *arguments]) == code
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held to the whole suite elsewhere is not, here."""
    few = {id_: case for id_, case in CASES.items() if id_.startswith(("ack.", "used."))}
    monkeypatch.setattr(selftest, "CASES", few)


@pytest.mark.usefixtures("few_cases")
def test_a_software_device_is_tested_as_the_settings_have_it(
    settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ran(capsys, 0, "--software", "good", "--config", settings)
    assert (good["identity"]["device"], good["node"], good["findings"]) == ("good", None, [])
    assert {each["verdict"] for each in good["cases"]} == {"pass"}
    bad = ran(capsys, 8, "--software", "bad", "--config", settings)
    failed = [each["id"] for each in bad["cases"] if each["verdict"] == "fail"]
    assert "ack.known" in failed
    assert "an ack of 7" in bad["findings"]


@pytest.mark.usefixtures("few_cases")
def test_it_is_written_in_each_format_that_is_asked_for(
    settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"result.{name}" for name in ("junit", "tap", "html")}
    options = [each for name, file in files.items() for each in (f"--{name}", str(file))]
    told = ran(capsys, 8, "--software", "bad", "--config", settings, *options)
    cases = len(told["cases"])
    assert f'tests="{cases}"' in files["junit"].read_text()
    assert f"\n1..{cases}\n" in files["tap"].read_text()
    assert "an ack of 7" in files["html"].read_text()


@pytest.mark.usefixtures("few_cases")
def test_a_file_that_cannot_be_written_is_told(
    settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--software", "good", "--config", settings, "--tap", "/nowhere/result.tap"]
    assert vdpactl.main(["selftest", "--repeat", "1", *arguments]) == 1
    assert "/nowhere/result.tap" in capsys.readouterr().err


@pytest.mark.usefixtures("few_cases")
def test_a_result_is_compared_with_an_earlier_one(
    settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ran(capsys, 0, "--software", "good", "--config", settings)
    assert "comparison" not in good
    file = tmp_path / "before.json"
    file.write_text(json.dumps(good))
    bad = ran(capsys, 8, "--software", "bad", "--config", settings, "--compare", str(file))
    worse = {each["id"]: each["now"] for each in bad["comparison"]["worse"]}
    assert worse["ack.known"] == "fail"
    assert bad["comparison"]["better"] == []


@pytest.mark.usefixtures("few_cases")
def test_a_device_that_is_slower_ends_so(
    settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ran(capsys, 0, "--software", "good", "--config", settings)
    for times in (good["alone"], good["batch"], *(each["alone"] for each in good["commands"])):
        times["p50_us"] = times["p99_us"] = 0.001
    file = tmp_path / "before.json"
    file.write_text(json.dumps(good))
    now = ran(capsys, 11, "--software", "good", "--config", settings, "--compare", str(file))
    assert {"alone", "batch"} <= {each["id"] for each in now["comparison"]["slower"]}


def test_what_cannot_be_compared_with(
    tmp_path: Path, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in (b"{}", b" " * (MAX_SIZE + 1)):
        (tmp_path / "before.json").write_bytes(data)
        arguments = ["--software", "good", "--config", settings]
        assert vdpactl.main(["selftest", *arguments, "--compare", f"{tmp_path}/before.json"]) == 2
        assert f"{tmp_path}/before.json: expected" in capsys.readouterr().err


def test_a_software_device_that_is_not_there(
    settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vdpactl.main(["selftest", "--software", "other", "--config", settings]) == 9
    assert "the settings have good, bad" in capsys.readouterr().err
    assert vdpactl.main(["selftest", "--software", "x", "--config", "/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["vdpa0", "--software", "sim0"],
        ["vdpa0", "--config", "file"],
        ["vdpa0", "--repeat", "0"],
        ["vdpa0", "--repeat", "1.5"],
        ["vdpa0", "--host", "host-b", "--key-file", "keys"],
    ],
)
def test_what_makes_no_sense_together(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        vdpactl.main(["selftest", *arguments])
    assert ended.value.code == 2
