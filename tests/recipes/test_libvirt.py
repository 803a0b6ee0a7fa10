"""libvirt's hooks: operations that ask for nothing, and the Python one, which reads the XML."""

from __future__ import annotations

import pytest

from .moves import CARD, GUEST, OTHER_CARD, SIM0, Moves
from .test_hooks import TWO_CARDS, XML, Hook, hook_of

BACK_END = XML.replace("type='vdpa'", "type='vhostuser'").replace(
    "<source dev='/dev/vhost-vdpa-0'/>",
    "<source type='unix' path='{}' mode='client'/>",
)


@pytest.fixture
def python() -> Hook:
    return hook_of("Python")


@pytest.mark.parametrize("name", ["bash", "Python"])
@pytest.mark.parametrize(
    "operation",
    ["prepare begin -", "start begin -", "started begin -", "stopped end -", "reconnect begin -"],
)
def test_other_operations_ask_for_nothing(moves: Moves, name: str, operation: str) -> None:
    moves.lay(state="no state")
    moves.socket = moves.folder / "none"
    done = hook_of(name).run(moves, GUEST, *operation.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_card_is_forgotten(python: Hook, moves: Moves) -> None:
    moves.lay(target=SIM0)
    (said,) = python.refuses(moves, TWO_CARDS)
    assert said.startswith(f"{GUEST}, {OTHER_CARD}: no state came for it; expected ")


def test_a_card_goes_where_the_xml_says(python: Hook, moves: Moves) -> None:
    moves.lay()
    (said,) = python.refuses(moves)
    assert "expected the path of a vhost-vdpa device's node" in said


def test_a_back_end_is_known_by_its_socket(python: Hook, moves: Moves) -> None:
    moves.lay()
    (said,) = python.refuses(moves, BACK_END.format("/run/vdpad/vhost-user-none.sock"))
    assert "/run/vdpad/vhost-user/none/io.vdpad: No such file or directory" in said


def test_other_vhost_user_cards_are_not_vdpads(python: Hook, moves: Moves) -> None:
    moves.lay(target=SIM0)
    moves.socket = moves.folder / "none"
    assert python.lets_in(moves, BACK_END.format("/run/openvswitch/vhu0"))


def test_an_address_is_one_however_it_is_written(python: Hook, moves: Moves) -> None:
    moves.lay(CARD, target=SIM0)
    assert python.lets_in(moves, XML.replace(CARD, CARD.upper()))


def test_xml_that_is_none_lets_nobody_in(python: Hook, moves: Moves) -> None:
    moves.lay(target=SIM0)
    (said,) = python.refuses(moves, "<domain>")
    assert said.startswith(f"{GUEST}: ")
