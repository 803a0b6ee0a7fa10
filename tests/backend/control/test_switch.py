"""The method `switch`, over both transports: which device is meant, and what is answered."""

from typing import Any

import pytest

from tests.backend.control.conftest import Controlled
from tests.backend.control.test_api import ask
from tests.support.varlink import VarlinkCaller
from vdpad.backend.control.sockets import VARLINK
from vdpad.backend.faults import CannotSwitch, MayNotSwitch, SwitchUnderWay
from vdpad.client import Refused
from vdpad.errors import VdpadError
from vdpad.queues.software.tap import TapBusy, TapNotPermitted
from vdpad.queues.vhost_vdpa.errors import NodeBusy, NoSuchNode, NotPermitted

LOOP = {"kind": "software", "name": "loop"}


async def test_it_is_told_what_became_of_it(controlled: Controlled) -> None:
    report = await ask(controlled, "switch", target=LOOP)
    assert (report["outcome"], report["commands"], report["paused_us"]) == ("restored", 2, 42)
    assert "notes" not in report
    with VarlinkCaller(controlled.paths[VARLINK], "io.vdpad.BackEnd") as caller:
        assert (await caller.call("Switch", target=LOOP))["paused_us"] == 42
    assert [device.name for device in controlled.switched] == ["loop", "loop"]
    for device in controlled.switched:
        device.close()


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"kind": "software", "name": "sim0"}, "kind loop, or tap: and an interface's name"),
        ({"kind": "vhost-vdpa", "device": "no-such-vdpa"}, "no-such-vdpa"),
        ({"kind": "vhost-vdpa", "path": "/dev/no-such-node"}, "/dev/no-such-node"),
    ],
)
async def test_a_device_that_there_is_not(
    controlled: Controlled, target: dict[str, str], why: str
) -> None:
    with pytest.raises(Refused, match=why) as refused:
        await ask(controlled, "switch", target=target)
    assert refused.value.kind == "no-such-device"


async def test_a_node_that_may_not_be_opened(controlled: Controlled) -> None:
    # Nobody may write to this one, root neither.
    target = {"kind": "vhost-vdpa", "path": "/sys/kernel/uevent_seqnum"}
    with pytest.raises(Refused, match=r"EACCES.*a udev rule") as refused:
        await ask(controlled, "switch", target=target)
    assert refused.value.kind == "not-allowed"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SwitchUnderWay("wait"), "busy"),
        (NodeBusy("another process has it"), "busy"),
        (TapBusy("another process has it, or this one"), "busy"),
        (NoSuchNode("it is being removed"), "no-such-device"),
        (NotPermitted("/dev/vhost-vdpa-1: open"), "not-allowed"),
        (TapNotPermitted("tap1: it is another user's"), "not-allowed"),
        (MayNotSwitch("RLIMIT_MEMLOCK; vdpa0 goes on as before"), "not-allowed"),
        (CannotSwitch("gone; vdpa0 goes on as before"), "device-broken"),
    ],
)
async def test_why_it_does_not_take_over(
    controlled: Controlled, error: VdpadError, kind: str
) -> None:
    controlled.refuses = error
    with pytest.raises(Refused, match=str(error)) as refused:
        await ask(controlled, "switch", target=LOOP)
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "target"),
        ({"target": "loop"}, "target"),
        ({"target": {"kind": "lent"}}, "target.kind"),
        ({"target": {"kind": "software"}}, "target.name"),
        ({"target": {"kind": "vhost-vdpa"}}, "target"),
        ({"target": {"kind": "vhost-vdpa", "device": "a", "path": "/b"}}, "target"),
        ({"target": {**LOOP, "more": 1}}, "target.more"),
    ],
)
async def test_what_names_no_device(
    controlled: Controlled, params: dict[str, Any], path: str
) -> None:
    with pytest.raises(Refused) as refused:
        await ask(controlled, "switch", **params)
    assert refused.value.kind == "invalid-params"
    assert [each["path"] for each in refused.value.data["problems"]] == [path]
    assert controlled.switched == []
