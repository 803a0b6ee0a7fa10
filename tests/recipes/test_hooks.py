"""libvirt's hooks and Proxmox VE's: what all do where a guest comes, and where it is gone."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.backend.process import BackEndProcess, new_guest
from tests.backend.process import running as back_end
from tests.cli.commands import forked
from tests.clients.programs import installed, run
from tests.support.forker import forker_of
from vdpad.virtio.commands import VlanAdd

from .moves import CARD, GUEST, OTHER_CARD, RECIPES, SIM0, TOO_LONG, WHY, Moves

XML = f"""
<domain type='kvm'>
  <name>{GUEST}</name>
  <devices>
    <interface type='vdpa'>
      <mac address='{CARD}'/><source dev='/dev/vhost-vdpa-0'/><model type='virtio'/>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/><source network='default'/>
    </interface>
  </devices>
</domain>
"""
TWO_CARDS = XML.replace(
    "</devices>",
    f"""<interface type='vdpa'>
      <mac address='{OTHER_CARD}'/><source dev='/dev/vhost-vdpa-1'/><model type='virtio'/>
    </interface></devices>""",
)


@functools.cache
def forked_vdpactl() -> tuple[Path, tuple[int, ...]]:
    """A folder with a vdpactl that a forker runs, and the descriptors that it needs."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder, (forked().lay(folder / "vdpactl"),)


@dataclass(frozen=True)
class Hook:
    """One, as its caller calls it."""

    program: tuple[str | Path, ...]
    comes: tuple[str, ...]
    gone: tuple[str, ...]
    sets: tuple[tuple[str, str], ...] = ()
    module: str = ""
    """Of the repository, that a forker runs instead of the program."""
    anew: bool = False
    """Whether an interpreter of its own runs it, and the vdpactl that it starts."""

    def run(
        self, moves: Moves, *arguments: str, xml: str = XML, sets: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """With these arguments instead of those of a guest that comes."""
        env = {**moves.env, **(dict(self.sets) if sets else {})}
        given = arguments or self.comes
        if self.module and not self.anew:
            # A recipe's folder has its files alone.
            forker = forker_of(self.module, PYTHONDONTWRITEBYTECODE="1")
            return forker.text(*given, stdin=xml.encode(), env={**os.environ, **env})
        folder, needed = (Path(sys.executable).parent, ()) if self.anew else forked_vdpactl()
        env["PATH"] = f"{folder}:{os.environ['PATH']}"
        return run(*self.program, *given, env=env, stdin=xml, fds=needed)

    def lets_in(self, moves: Moves, xml: str = XML) -> bool:
        """Whether a guest may come; a hook that lets it in says nothing."""
        done = self.run(moves, xml=xml)
        assert done.stdout == ""
        assert done.returncode in (0, 1)
        assert (done.stderr == "") == (done.returncode == 0)
        return done.returncode == 0

    def refuses(self, moves: Moves, xml: str = XML) -> list[str]:
        """The lines by which it does."""
        done = self.run(moves, xml=xml)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr.splitlines()

    def goes(self, moves: Moves) -> None:
        """The guest is gone."""
        done = self.run(moves, *self.gone)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


COMES, GONE = (GUEST, "migrate", "begin", "-"), (GUEST, "release", "end", "failed")


def hook_of(name: str) -> Hook:
    """The hook in this language."""
    if name == "bash":
        return Hook((RECIPES / "libvirt" / "qemu-hook.bash",), COMES, GONE)
    if name == "Python":
        program = RECIPES / "libvirt" / "qemu_hook.py"
        module = "docs.recipes.libvirt.qemu_hook"
        return Hook((sys.executable, "-I", program), COMES, GONE, module=module)
    perl = (installed("perl"), RECIPES / "proxmox" / "vdpad-hook.pl")
    migrated = (("PVE_MIGRATED_FROM", "node-a"),)
    return Hook(perl, (GUEST, "pre-start"), (GUEST, "post-stop"), migrated)


@pytest.fixture(params=["bash", "Python", "Perl"])
def hook(request: pytest.FixtureRequest) -> Hook:
    return hook_of(request.param)


# --- a guest comes ---


def test_a_state_that_fits_is_let_in_and_nothing_prepared(
    hook: Hook, moves: Moves, name: str
) -> None:
    moves.lay(target=SIM0)
    assert replace(hook, anew=True).lets_in(moves)
    assert moves.became(name) is None


def test_a_guest_that_has_set_nothing_is_let_in(hook: Hook, moves: Moves) -> None:
    moves.lay(state={"version": 1, "features": []}, target=SIM0)
    assert hook.lets_in(moves)


def test_what_somebody_will_commit_is_prepared(hook: Hook, moves: Moves, name: str) -> None:
    moves.lay_prepared(name)
    assert hook.lets_in(moves)
    assert moves.became(name) == "prepared"


def test_asked_again_it_does_nothing_twice(hook: Hook, moves: Moves, name: str) -> None:
    moves.lay_prepared(name)
    assert hook.lets_in(moves)
    assert hook.lets_in(moves)
    assert moves.became(name) == "prepared"


def test_a_state_that_does_not_fit_is_refused_with_why(hook: Hook, moves: Moves) -> None:
    moves.lay(state=TOO_LONG, target=SIM0)
    said = "\n".join(hook.refuses(moves))
    assert said.startswith(f"{GUEST}, {CARD}: ")
    assert "rss.indirection_table" in said
    assert WHY in said


def test_every_card_that_is_refused_is_told_and_none_prepared(
    hook: Hook, moves: Moves, name: str
) -> None:
    moves.lay_prepared(name)
    moves.lay(CARD, state=TOO_LONG)
    moves.lay(OTHER_CARD, state=TOO_LONG, target=SIM0)
    said = hook.refuses(moves, TWO_CARDS)
    first = [line for line in said if line.startswith(f"{GUEST}, ")]
    assert [line.split(": ")[0] for line in first] == [
        f"{GUEST}, {CARD}",
        f"{GUEST}, {OTHER_CARD}",
    ]
    assert moves.became(name) is None


def test_where_one_cannot_be_prepared_none_stays_prepared(
    hook: Hook, moves: Moves, name: str
) -> None:
    moves.lay_prepared(name)
    moves.lay(OTHER_CARD, target=SIM0, commit="no~name 0")
    assert any("migration" in line for line in hook.refuses(moves, TWO_CARDS))
    assert moves.became(name) == "cancelled"


def test_where_no_daemon_is_the_guest_stays_away(hook: Hook, moves: Moves) -> None:
    moves.lay(target=SIM0)
    moves.socket = moves.folder / "none"
    said = "\n".join(hook.refuses(moves))
    assert "No such file or directory; is vdpad running?" in said


def test_a_guest_of_which_nothing_came_is_none_of_vdpads(hook: Hook, moves: Moves) -> None:
    moves.socket = moves.folder / "none"
    assert hook.lets_in(moves)


@pytest.mark.parametrize(
    "files",
    [
        {"target": "{"},
        {"target": '{"kind": "software", "name": "none"}'},
        {"state": "no state", "target": "{}"},
        {"state": "", "target": "{}"},
    ],
    ids=["no JSON", "no such device", "no state", "empty"],
)
def test_files_that_make_no_sense_are_refused(
    hook: Hook, moves: Moves, files: dict[str, str]
) -> None:
    moves.lay(**files)
    assert hook.refuses(moves)[0].startswith(f"{GUEST}, {CARD}: ")


def test_files_that_make_no_sense_are_named(hook: Hook, moves: Moves) -> None:
    moves.lay(state="{", target=SIM0)
    assert f"{CARD}.state" in "\n".join(hook.refuses(moves))


@pytest.mark.parametrize("ending", ["target", "backend", "commit"])
def test_a_card_without_a_state_is_refused(hook: Hook, moves: Moves, ending: str) -> None:
    moves.lay(target=SIM0)
    (moves.folder / GUEST / f"{CARD}.state").unlink()
    (moves.folder / GUEST / f"{CARD}.target").rename(moves.folder / GUEST / f"{CARD}.{ending}")
    said = "\n".join(hook.refuses(moves))
    assert said.startswith(f"{GUEST}, {CARD}: ")


def test_a_folder_without_states_lets_nobody_in(hook: Hook, moves: Moves) -> None:
    (moves.folder / GUEST).mkdir(parents=True)
    (said,) = hook.refuses(moves)
    assert "no state came for " in said
    assert str(moves.folder / GUEST) in said


def test_a_capture_of_no_guest_is_refused_as_what_it_is(hook: Hook, moves: Moves) -> None:
    moves.lay(state={"state": None, "missing": [], "rings": [], "running": False}, target=SIM0)
    said = "\n".join(hook.refuses(moves))
    assert "the back end knew of no guest, or no state can say it" in said


def test_without_arguments_it_says_what_it_expects(hook: Hook, moves: Moves) -> None:
    done = run(*hook.program, env=moves.env, stdin="")
    assert done.returncode != 0
    assert "expected" in done.stderr


# --- and is gone ---


def test_what_nobody_has_committed_is_given_up(hook: Hook, moves: Moves, name: str) -> None:
    moves.lay_prepared(name)
    assert hook.lets_in(moves)
    hook.goes(moves)
    assert moves.became(name) == "cancelled"


def test_what_was_committed_stays_so(hook: Hook, moves: Moves, name: str) -> None:
    moves.lay_prepared(name)
    assert hook.lets_in(moves)
    moves.commit(name)
    hook.goes(moves)
    assert moves.became(name) == "restored"


def test_of_what_was_never_prepared_nothing_is_said(hook: Hook, moves: Moves, name: str) -> None:
    moves.lay_prepared(name)
    hook.goes(moves)


# --- whose device a back end has ---


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[BackEndProcess]:
    (folder := tmp_path / "back-end").mkdir()
    async with back_end(folder, "--stay") as process:
        yield process


def test_a_back_end_that_is_not_there_is_named(hook: Hook, moves: Moves) -> None:
    moves.lay(backend="none")
    said = "\n".join(hook.refuses(moves))
    assert "/run/vdpad/vhost-user/none/" in said
    assert "No such file or directory; is vdpad-vhost-user running?" in said


async def test_what_a_back_end_captured_is_asked_of_another(
    hook: Hook, moves: Moves, process: BackEndProcess
) -> None:
    guest = new_guest()
    async with process.vmm(guest) as vmm:
        await vmm.start()
        await vmm.command(VlanAdd(5).encode())
        captured = await process.ask("capture")
    guest.close()
    moves.lay(state=captured, backend=str(process.varlink))
    assert hook.lets_in(moves)
    moves.lay(state=TOO_LONG)
    assert WHY in "\n".join(hook.refuses(moves))
