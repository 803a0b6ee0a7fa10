"""Which commands a selftest sends, what it makes of the answers, and how it ends.

On devices, see tests/vm.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.support import is_error
from tests.support.daemon import ROOT
from vdpad.cli import selftest, show, vdpactl
from vdpad.cli.selftest import (
    CommandOutcome,
    SelfTest,
    SelfTestStage,
    _acks,
    _carried_over,
    _findings,
    _length_notes,
    candidates,
)
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
from vdpad.restore.replay import Outcome, Replayed
from vdpad.virtio.commands import COMMANDS, AnnounceAck, CoalVqGet, MacAddrSet, VlanAdd
from vdpad.virtio.config import HashType, NetConfig
from vdpad.virtio.features import Feature

CONFIG = NetConfig(
    max_virtqueue_pairs=4,
    rss_max_key_size=40,
    rss_max_indirection_table_length=128,
    supported_hash_types=frozenset(HashType),
)
ALL = frozenset(Feature)
SENT = VlanAdd(1)


def test_every_command_that_carries_state_is_tried() -> None:
    tried = {type(each) for each in candidates(ALL, CONFIG)}
    assert tried == set(COMMANDS.values()) - {AnnounceAck, CoalVqGet}


@pytest.mark.parametrize("feature", sorted({each.FEATURE for each in COMMANDS.values()}))
def test_none_that_the_features_do_not_allow(feature: Feature) -> None:
    without = candidates(ALL - {feature}, CONFIG)
    assert all(each.FEATURE is not feature for each in without)


def test_a_device_without_an_address_gets_a_local_one() -> None:
    (command,) = candidates(frozenset({Feature.CTRL_MAC_ADDR}), NetConfig())
    assert isinstance(command, MacAddrSet)
    assert command.mac[0] & 0b11 == 0b10


@pytest.mark.parametrize(
    ("alone", "in_batch", "said"),
    [
        (0, 0, None),
        (1, 1, "refused, though the device offers CTRL_VLAN"),
        (0, 1, "acknowledged alone, refused in the batch"),
        (1, 0, "refused alone, acknowledged in the batch"),
        (None, 0, "not answered"),
        (0, None, "not answered"),
    ],
)
def test_findings(alone: int | None, in_batch: int | None, said: str | None) -> None:
    found = list(_findings([CommandOutcome(SENT, alone, 1.0, in_batch)]))
    assert found == ([] if said is None else found)
    assert len(found) == (said is not None)
    assert all(said is not None and said in each for each in found)


@pytest.mark.parametrize(
    ("alone", "behind", "findings"), [(1, 1, 0), (0, 0, 1), (1, 0, 1), (None, 1, 1), (1, None, 1)]
)
def test_a_command_that_does_not_exist(
    alone: int | None, behind: int | None, findings: int
) -> None:
    assert len(list(_carried_over([SENT], alone, behind))) == findings


def test_lengths_that_no_ack_has_are_a_note_and_no_finding() -> None:
    sent = [
        Replayed(Outcome.RESTORED, (), (), 1, 1, 1, wrong_lengths=lengths)
        for lengths in (((2, 1),), (), ((0, 1), (2, 3)))
    ]
    (note,) = _length_notes(sent, 8)
    assert note.startswith("5 of 8 commands came back with a used length of 0, 2, ")
    assert _length_notes(sent[1:2], 1) == ()
    told = SelfTest(
        node=Path("/dev/vhost-vdpa-0"),
        features=ALL,
        ring_size=64,
        answers=(CommandOutcome(SENT, 0, 1.0, 0),),
        alone_us=1.0,
        batch_us=1.0,
        batch_doorbells=1,
        findings=(),
        notes=(note,),
    ).to_json()
    text = show.selftest(told)
    assert text.endswith(f"Nothing was found that a device should not do.\n\nnote: {note}")


def test_acks() -> None:
    sent = Replayed(Outcome.INCOMPLETE, (1,), (2,), 1, 1, None)
    assert _acks(sent, 4) == [0, 1, None, 0]


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
    async def run(node: Path, stage: SelfTestStage) -> SelfTest:
        raise error

    monkeypatch.setattr(selftest, "_run", run)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (NoSuchNode("gone"), "no-such-device", 9),
        (NoControlQueue(frozenset()), "no-such-device", 9),
        (NoNetworkDevice("a disk"), "no-such-device", 9),
        (DeviceRefused("no"), "device-broken", 8),
        (VhostVdpaError("no"), "device-broken", 8),
        (NodeBusy("no"), "busy", 1),
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
        ("{}", 0, None),
        ('{"faults": {"3": "err"}}', 8, "refused, though the device offers"),
        ('{"faults": {"2": "id-twice"}}', 8, "broke the rules of the ring"),
    ],
)
def test_a_device_that_was_tested(told: str, code: int, finding: str | None) -> None:
    command = [sys.executable, "-m", "tests.cli.software_selftest", told, "selftest", "vdpa0"]

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )

    done = run()
    assert (done.returncode, done.stderr) == (code, "")
    assert finding is None or f"{finding}" in done.stdout.partition("\n! ")[2]
    done = run("--json")
    assert (done.returncode, done.stderr) == (code, "")
    findings = json.loads(done.stdout)["findings"]
    assert findings == [] if finding is None else any(finding in each for each in findings)
