"""The control socket's methods, over both of its transports."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.backend.control.conftest import Controlled, report_of
from tests.backend.shown_device import GUEST
from tests.support.varlink import VarlinkCaller
from tests.vhost_user.front_end import FrontEnd
from vdpad.backend.control.sockets import CONTROL, VARLINK
from vdpad.backend.faults import DeviceRuns, NotRestored
from vdpad.backend.marking import Logged
from vdpad.client import Client, Refused
from vdpad.errors import VdpadError
from vdpad.queues.vhost_vdpa.errors import DeviceRefused, MemoryLimit
from vdpad.restore.replay import Outcome
from vdpad.service.events.kinds import NotAllowed
from vdpad.state.problems import Problem
from vdpad.virtio.commands import RxAllUni, VlanAdd
from vdpad.virtio.features import FEATURES, Feature

pytestmark = pytest.mark.usefixtures("controlled")

_MASK = sum(1 << bit for bit in GUEST)


async def ask(controlled: Controlled, method: str, **params: Any) -> Any:
    """By datagram."""
    async with Client(controlled.paths[CONTROL]) as client:
        return await client.call(method, **params)


async def start(front_end: FrontEnd, *, base: int = 0) -> None:
    """All three queues of a guest without MQ set up, and the device started."""
    await front_end.negotiate(_MASK & ~(1 << Feature.MQ))
    await front_end.share_memory()
    for index in range(3):
        await front_end.set_up(index, base)
    await front_end.enable(0, 1, 2)


async def test_info_tells_what_it_is(controlled: Controlled) -> None:
    result = await ask(controlled, "info")
    assert result["name"] == "vm-7"
    assert result["device"] == "a device of the tests"
    assert result["provides_control_queue"] is False
    assert result["api"] == 1
    assert set(result) == {"name", "version", "api", "device", "provides_control_queue", "limits"}


async def test_status_goes_through_the_phases(controlled: Controlled) -> None:
    status = await ask(controlled, "status")
    assert (status["phase"], status["front_end"], status["queues"]) == ("waiting", None, [])
    async with controlled.front_end() as front_end:
        await front_end.number(1)
        status = await ask(controlled, "status")
        assert status["phase"] == "connected"
        assert status["front_end"] == {"pid": os.getpid(), "uid": os.getuid()}
        await start(front_end)
        status = await ask(controlled, "status")
        assert status["phase"] == "running"
        assert status["features"] == FEATURES.names(sorted(GUEST - {Feature.MQ}))
        assert status["queues"] == [
            {"index": index, "size": 16, "base": 0, "enabled": True} for index in range(3)
        ]
        controlled.device.fold(VlanAdd(7).encode())
        controlled.device.fold(VlanAdd(8).encode(), ack=1)
        controlled.device.bases = {2: 2}
        await front_end.base(2)
        status = await ask(controlled, "status")
        assert status["phase"] == "stopped"
        assert status["commands"] == {"forwarded": 2, "acked": 1, "refused": 1}
        assert status["queues"][2]["base"] == 2
        assert (status["logging"], status["report"]) == (None, None)
        controlled.device.logged = Logged("everything", 32)
        status = await ask(controlled, "status")
        assert status["logging"] == {"way": "everything", "pages": 32}
    assert (await ask(controlled, "status"))["phase"] == "waiting"


async def test_a_device_that_failed_says_why_and_no_other_does(controlled: Controlled) -> None:
    assert "reason" not in await ask(controlled, "status")
    controlled.device.failure = "chain 3: expected a class"
    status = await ask(controlled, "status")
    assert (status["phase"], status["reason"]) == ("failed", "chain 3: expected a class")


async def test_capture_is_what_the_guest_has_set(controlled: Controlled) -> None:
    nothing: dict[str, Any] = {"state": None, "missing": [], "rings": [], "running": False}
    assert await ask(controlled, "capture") == nothing
    controlled.device.fold(VlanAdd(7).encode())
    # CTRL_RX_EXTRA is not negotiated, so no state can say it.
    controlled.device.fold(RxAllUni(on=True).encode())
    controlled.device.settings.bases = {1: 5, 0: 4}
    captured = await ask(controlled, "capture")
    assert captured["state"] == {
        "version": 1,
        "features": FEATURES.names(sorted(GUEST)),
        "vlans": [7],
    }
    ((part, why),) = [each.values() for each in captured["missing"]]
    assert part == "rx.alluni"
    assert "CTRL_RX_EXTRA is not negotiated" in why
    assert captured["rings"] == [{"queue": 0, "base": 4}, {"queue": 1, "base": 5}]


async def test_check_is_against_its_device(controlled: Controlled) -> None:
    state = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [[5, 9]]}
    result = await ask(controlled, "check", state=state)
    assert result["plan"] == [{"command": "VLAN_ADD", "count": 5}]
    other = {"version": 1, "features": ["CTRL_VQ", "NOTF_COAL"], "coalescing": {}}
    other["coalescing"] = {"rx": {"max_packets": 1, "max_usecs": 1}}
    result = await ask(controlled, "check", state=other)
    assert result["compatible"] is False
    assert result["problems"]


@pytest.mark.parametrize("method", ["commit", "restore", "watch"])
async def test_what_is_not_there_is_told_so(controlled: Controlled, method: str) -> None:
    with pytest.raises(Refused) as raised:
        await ask(controlled, method)
    assert raised.value.kind == "method-not-found"
    assert "info, status, capture, check" in str(raised.value)


async def test_wrong_parameters_are_all_told(controlled: Controlled) -> None:
    with pytest.raises(Refused) as raised:
        await ask(controlled, "status", of="it", now=True)
    assert {each["path"] for each in raised.value.data["problems"]} == {"of", "now"}


async def test_nobody_else_may_ask(controlled: Controlled, tmp_path: Path) -> None:
    other = Controlled(tmp_path, {os.getuid() + 1})
    other.paths = {CONTROL: tmp_path / "c", VARLINK: tmp_path / "v"}
    await other.sockets.listen(other.paths, {}, 0o600)
    try:
        with pytest.raises(Refused) as raised:
            await ask(other, "status")
        assert raised.value.kind == "not-allowed"
        with VarlinkCaller(other.paths[VARLINK], "io.vdpad.BackEnd") as caller:
            error, _ = await caller.error("Capture")
            assert error == "io.vdpad.BackEnd.NotAllowed"
            await caller.say("Watch", (), "more")
            assert (await caller.reply())["error"] == "io.vdpad.BackEnd.NotAllowed"
    finally:
        await other.sockets.close()
    told = [each for each in other.events if isinstance(each, NotAllowed)]
    assert [each.method for each in told] == ["status", "capture", "watch"]


async def test_a_fault_of_ours_is_answered_and_the_next_request_too(
    controlled: Controlled,
) -> None:
    controlled.device.settings = None  # type: ignore[assignment]
    with pytest.raises(Refused) as raised:
        await ask(controlled, "capture")
    assert raised.value.kind == "internal"
    assert (await ask(controlled, "info"))["name"] == "vm-7"


# --- over a connection ---


async def test_the_same_over_varlink(controlled: Controlled) -> None:
    with VarlinkCaller(controlled.paths[VARLINK], "io.vdpad.BackEnd") as caller:
        for method in ("info", "status", "capture"):
            over_datagrams = await ask(controlled, method)
            over_connection = await caller.call(method.capitalize())
            over_datagrams.pop("limits", None)
            over_connection.pop("limits", None)
            assert over_connection == over_datagrams


async def test_watch_tells_each_change(controlled: Controlled) -> None:
    with VarlinkCaller(controlled.paths[VARLINK], "io.vdpad.BackEnd") as caller:
        await caller.say("Watch", (), "more")
        first = await caller.reply()
        assert first["continues"] is True
        assert first["parameters"]["status"]["phase"] == "waiting"
        controlled.device.fold(VlanAdd(7).encode())
        controlled.overview.changed()
        second = await caller.reply()
        assert second["parameters"]["status"]["commands"]["acked"] == 1
        controlled.overview.changed()  # nothing is
        controlled.device.failure = "it is broken"
        controlled.overview.changed()
        third = await caller.reply()
        assert third["parameters"]["status"]["phase"] == "failed"


# --- load ---

STATE: dict[str, Any] = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [7]}


async def test_load_takes_what_capture_gives(controlled: Controlled) -> None:
    controlled.device.fold(VlanAdd(7).encode())
    controlled.device.fold(RxAllUni(on=True).encode())
    controlled.device.settings.bases = {0: 4, 2: 2}
    captured = await ask(controlled, "capture")
    del captured["running"]
    report = await ask(controlled, "load", **captured)
    assert (report["outcome"], report["commands"], report["migration"]) == ("restored", 2, "vm-7")
    (moved,) = controlled.loaded
    assert moved.state == controlled.device.settings.recorder.found().state  # type: ignore[union-attr]
    assert [each.part for each in moved.missing] == ["rx.alluni"]
    assert moved.bases == {0: 4, 2: 2}
    with VarlinkCaller(controlled.paths[VARLINK], "io.vdpad.BackEnd") as caller:
        assert (await caller.call("Load", state=STATE))["outcome"] == "restored"
    assert controlled.loaded[1].bases == {}


@pytest.mark.parametrize(
    ("error", "kind", "data"),
    [
        (DeviceRuns("a guest has it"), "busy", {}),
        (
            NotRestored("too many", problems=(Problem("queue_pairs", "out-of-range", "9"),)),
            "incompatible",
            {"problems": [{"path": "queue_pairs", "code": "out-of-range", "message": "9"}]},
        ),
        (NotRestored("VLAN_ADD", report=report_of(Outcome.REJECTED)), "rejected", None),
        (NotRestored("late", report=report_of(Outcome.INCOMPLETE)), "timeout", None),
        (NotRestored("odd", report=report_of(Outcome.BROKEN)), "device-broken", None),
        (DeviceRefused("the device does not come up"), "device-broken", {}),
        (MemoryLimit("RLIMIT_MEMLOCK"), "not-allowed", {}),
    ],
)
async def test_why_a_state_is_not_taken(
    controlled: Controlled, error: VdpadError, kind: str, data: dict[str, Any] | None
) -> None:
    controlled.refuses = error
    with pytest.raises(Refused) as refused:
        await ask(controlled, "load", state=STATE)
    assert refused.value.kind == kind
    assert str(error) in str(refused.value)
    told = {key: value for key, value in refused.value.data.items() if key != "kind"}
    if data is None:
        assert [each["arguments"] for each in told["report"]["rejected"]] == ["vid=8"]
    else:
        assert told == data


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "state"),
        ({"state": {**STATE, "vlans": [5000]}}, "state.vlans.0"),
        ({"state": STATE, "rings": [{"queue": 0, "base": 65536}]}, "rings.0.base"),
        ({"state": STATE, "rings": [{"queue": 0, "base": 1}] * 2}, "rings.1.queue"),
        ({"state": STATE, "running": True}, "running"),
    ],
)
async def test_what_cannot_be_loaded(
    controlled: Controlled, params: dict[str, Any], path: str
) -> None:
    with pytest.raises(Refused) as refused:
        await ask(controlled, "load", **params)
    assert refused.value.kind == "invalid-params"
    assert [each["path"] for each in refused.value.data["problems"]] == [path]
    assert controlled.loaded == []
