"""Who may call which method, by the kernel's word on the sender."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.support import Caller, is_error, serving
from vdpad.daemon.settings import Access
from vdpad.wire.datagrams import Peer

ME, OTHER = os.getuid(), os.getuid() + 1
MY_GROUP, OTHER_GROUP = os.getgid(), os.getgid() + 1


@pytest.mark.parametrize(
    ("access", "may"),
    [
        ({"users": [ME]}, True),
        ({"groups": [MY_GROUP]}, True),
        ({"users": [OTHER], "groups": [MY_GROUP]}, True),
        ({"users": [OTHER], "groups": [OTHER_GROUP]}, False),
        ({"other_hosts": True}, False),
        ({}, False),
    ],
)
async def test_a_method_is_for_its_users_and_groups(
    tmp_path: Path, access: dict[str, Any], may: bool
) -> None:
    async with serving(tmp_path, access={"status": access}) as path:
        with Caller(path) as caller:
            if may:
                await caller.result("status")
            else:
                assert is_error(await caller.error("status"), "not-allowed")
            # An operator who may not commit may still look.
            await caller.result("info")


async def test_the_refusal_names_the_setting(tmp_path: Path) -> None:
    async with serving(tmp_path, access={"commit": {"users": [OTHER]}}) as path:
        with Caller(path) as caller:
            error = await caller.error("commit", migration="vm-1")
            assert error["message"] == (
                f"uid {ME} with gid {MY_GROUP} may not call commit (setting access.commit)"
            )


def test_other_hosts_have_no_uids() -> None:
    """The uid of a sealed request means nothing, whatever it is."""
    sealed = Peer("there", uid=ME, gid=MY_GROUP, sealed=True)
    assert not Access(users=(ME,), groups=(MY_GROUP,)).permits(sealed)
    assert Access(other_hosts=True).permits(sealed)
    assert not Access(other_hosts=True).permits(Peer("here", uid=ME, gid=MY_GROUP))
