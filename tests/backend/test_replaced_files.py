"""A back end whose package was upgraded or removed under it: its guest goes on, and moves."""

import sys

import pytest

from tests.backend.vmm import Heard, back_end, vmm
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.backend.events import LoggingBegan


@pytest.mark.parametrize("gone", ["relay", "relay.relay", "relay.written"])
async def test_what_cannot_be_loaded_any_more_is_no_fault_of_the_device(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    for name in [each for each in sys.modules if each.startswith("vdpad.backend.relay.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, f"vdpad.backend.{gone}", None)
    async with back_end(heard=heard) as on, vmm(on) as machine:
        await machine.start()
        with log_file(1 << 31 >> 15) as log:
            await machine.log(log)
            assert await machine.loop(b"meanwhile") == b"meanwhile"
            await machine.stop()
            assert machine.guest.pages <= pages_in(log)
    assert on.refusals == []
    (began,) = (each for each in heard.events if isinstance(each, LoggingBegan))
    assert began.way == "everything"
