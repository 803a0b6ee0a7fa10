"""libvirt calls the hooks as their page says, and does with what they say what it says."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.recipes.moves import RECIPES, SIM0, TOO_LONG, WHY

from .conftest import CARD, GUEST
from .host import Host, add_hook

# Of a guest whose driver has not started.
NOTHING_SET = {"version": 1, "features": []}


@pytest.fixture(params=["qemu-hook.bash", "qemu_hook.py"])
def hooked(request: pytest.FixtureRequest, destination: Host) -> Host:
    """The destination, with one of the recipe's hooks."""
    hook = destination.hooks / "50-vdpad"
    shutil.copy(RECIPES / "libvirt" / request.param, hook)
    hook.chmod(0o755)
    return destination


def lay(on: Host, state: object, migration: str) -> None:
    """What an orchestrator brings: the card is a back end's, and somebody will commit to sim0."""
    folder = on.moves / GUEST
    folder.mkdir()
    files = {
        "state": json.dumps(state),
        "backend": "net0",
        "target": json.dumps(SIM0),
        "commit": f"{migration} 0",
    }
    for ending, text in files.items():
        (folder / f"{CARD}.{ending}").write_text(text)


def calls(on: Host) -> list[str]:
    """Of its hooks, which are all for this guest."""
    assert {guest for guest, *_ in on.calls()} == {GUEST}
    return [f"{operation} {sub_operation}" for _, operation, sub_operation, *_ in on.calls()]


def became(on: Host, migration: str) -> str | None:
    """Of an operation of its vdpad; None where there is none."""
    done = on.run("vdpactl", "--json", "status", migration)
    found = json.loads(done.stdout)
    return None if "error" in found else str(found["state"])


def migrate(source: Host, destination: Host) -> subprocess.CompletedProcess[str]:
    """Live, as an operator does."""
    return source.virsh("migrate", "--live", GUEST, destination.uri, "tcp://127.0.0.1:49200")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A migration's, of this test alone."""
    test: str = request.node.name
    return test.replace("[", "/").rstrip("]")


def test_a_guest_whose_state_fits_comes(source: Host, hooked: Host, name: str) -> None:
    lay(hooked, NOTHING_SET, name)
    done = migrate(source, hooked)
    assert done.returncode == 0, done.stderr + hooked.log()
    assert (source.guests(), hooked.guests()) == ([], [GUEST])
    assert became(hooked, name) == "prepared"
    begins = ["migrate begin", "prepare begin", "start begin", "started begin"]
    assert calls(hooked) == begins
    hooked.output("virsh", "destroy", GUEST)
    assert calls(hooked) == [*begins, "stopped end", "release end"]
    assert became(hooked, name) == "cancelled"


def test_a_guest_whose_state_does_not_fit_stays_and_its_operator_is_told_why(
    source: Host, hooked: Host, name: str
) -> None:
    lay(hooked, TOO_LONG, name)
    done = migrate(source, hooked)
    assert done.returncode != 0
    assert "Hook script execution failed" in done.stderr
    assert WHY in done.stderr
    assert (source.guests(), hooked.guests()) == ([GUEST], [])
    assert calls(hooked) == ["migrate begin"]
    assert became(hooked, name) is None


def test_where_another_hook_fails_before_qemu_starts_it_is_given_up(
    source: Host, hooked: Host, name: str
) -> None:
    lay(hooked, NOTHING_SET, name)
    add_hook(hooked.hooks / "90-fails", '[ "$2" != prepare ]')
    assert migrate(source, hooked).returncode != 0
    assert (source.guests(), hooked.guests()) == ([GUEST], [])
    assert calls(hooked) == ["migrate begin", "prepare begin", "stopped end", "release end"]
    assert became(hooked, name) == "cancelled"


def test_where_a_later_hook_lets_nobody_in_it_is_told_nothing(
    source: Host, hooked: Host, name: str
) -> None:
    """So the page says to have none behind it."""
    lay(hooked, NOTHING_SET, name)
    add_hook(hooked.hooks / "90-fails", '[ "$2" != migrate ]')
    assert migrate(source, hooked).returncode != 0
    assert calls(hooked) == ["migrate begin"]
    assert became(hooked, name) == "prepared"
    hooked.output("vdpactl", "cancel", name)


def test_a_guest_of_which_nothing_came_is_let_in(source: Host, destination: Host) -> None:
    for each in ("qemu-hook.bash", "qemu_hook.py"):
        shutil.copy(RECIPES / "libvirt" / each, destination.hooks / each)
        (destination.hooks / each).chmod(0o755)
    done = migrate(source, destination)
    assert done.returncode == 0, done.stderr + destination.log()
    assert destination.guests() == [GUEST]
