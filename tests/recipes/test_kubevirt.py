"""KubeVirt's hook, by the system's Python alone, which has none of vdpad's packages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import SHARED, run, run_in_a_container
from tests.support.daemon import Daemon

from .moves import RECIPES, SIM0, STATE, TOO_LONG, WHY, Moves

HOOK = RECIPES / "kubevirt" / "on_define_domain.py"
# Isolated, and without packages that the system has beside.
PYTHON = ("/usr/bin/python3", "-I", "-S")
DOMAIN = "<domain type='kvm'>\n  <name>default_vm7</name>\n</domain>"
COMES = {"migrationState": {"targetNode": "node-b", "targetPod": "virt-launcher-vm7-x"}}


def vmi(status: dict[str, Any], **moves: dict[str, Any]) -> str:
    """What KubeVirt has of a guest, as far as it matters here."""
    annotations = {"vdpad/move": json.dumps(moves)} if moves else {}
    metadata = {"name": "vm7", "namespace": "default", "annotations": annotations}
    return json.dumps({"metadata": metadata, "spec": {}, "status": status})


@pytest.fixture
def where(moves: Moves) -> Path:
    """The folder of sockets."""
    return moves.socket.parent


def called(where: Path, described: str) -> subprocess.CompletedProcess[str]:
    """As sidecar-shim does."""
    arguments = ("--vmi", described, "--domain", DOMAIN)
    return run(*PYTHON, HOOK, *arguments, env={"VDPAD_RUN": str(where)})


def lets_in(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether it does; the domain is then as it came."""
    assert (done.stdout, done.stderr) == (f"{DOMAIN}\n", "")
    return done.returncode == 0


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Why it does not."""
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_a_state_that_fits_is_let_in(where: Path) -> None:
    assert lets_in(called(where, vmi(COMES, net0={"state": STATE, "target": SIM0})))


def test_in_a_container_that_has_the_sockets_and_nothing_else(where: Path) -> None:
    described = vmi(COMES, net0={"state": STATE, "target": SIM0})
    arguments = ("--vmi", described, "--domain", DOMAIN)
    env = ("env", f"VDPAD_RUN={SHARED}")
    assert lets_in(run_in_a_container(where, *env, *PYTHON, HOOK, *arguments))


def test_what_somebody_will_commit_is_prepared(where: Path, moves: Moves) -> None:
    move = {"state": STATE, "target": SIM0, "migration": "kubevirt/1", "committer": 0}
    assert lets_in(called(where, vmi(COMES, net0=move)))
    assert moves.became("kubevirt/1") == "prepared"


def test_a_state_that_does_not_fit_is_refused_with_why(where: Path, moves: Moves) -> None:
    good = {"state": STATE, "target": SIM0, "migration": "kubevirt/2", "committer": 0}
    bad = {"state": TOO_LONG, "target": SIM0}
    said = refused(called(where, vmi(COMES, net0=good, net1=bad)))
    assert said == f"net1: the device cannot take its state: rss.indirection_table: {WHY}\n"
    assert moves.became("kubevirt/2") is None


def test_where_one_cannot_be_prepared_none_stays_prepared(where: Path, moves: Moves) -> None:
    good = {"state": STATE, "target": SIM0, "migration": "kubevirt/3", "committer": 0}
    bad = {"state": STATE, "target": SIM0, "migration": "no~name", "committer": 0}
    said = refused(called(where, vmi(COMES, net0=good, net1=bad)))
    assert said.startswith("net1: org.varlink.service.InvalidParameter: migration: ")
    assert moves.became("kubevirt/3") == "cancelled"


@pytest.mark.parametrize(
    "status", [{}, {"migrationState": {**COMES["migrationState"], "completed": True}}]
)
def test_a_guest_that_comes_from_nowhere_is_let_in(tmp_path: Path, status: dict[str, Any]) -> None:
    move = {"state": TOO_LONG, "target": SIM0}
    assert lets_in(called(tmp_path, vmi(status, net0=move)))


def test_a_guest_of_which_nothing_came_is_none_of_vdpads(tmp_path: Path) -> None:
    assert lets_in(called(tmp_path, vmi(COMES)))


def test_where_no_daemon_is_the_guest_stays_away(tmp_path: Path) -> None:
    said = refused(called(tmp_path, vmi(COMES, net0={"state": STATE, "target": SIM0})))
    expected = f"net0: {tmp_path}/io.vdpad: No such file or directory; is vdpad running?\n"
    assert said == expected


def test_where_no_back_end_is_the_guest_stays_away(where: Path) -> None:
    said = refused(called(where, vmi(COMES, net0={"state": STATE, "backend": "vdpa0"})))
    path = f"{where}/vhost-user/vdpa0/io.vdpad"
    assert said == f"net0: {path}: No such file or directory; is vdpad-vhost-user running?\n"


def test_what_a_back_end_captured_is_taken(where: Path) -> None:
    captured = {"state": STATE, "missing": [], "rings": [], "running": False}
    assert lets_in(called(where, vmi(COMES, net0={"state": captured, "target": SIM0})))
    nobody = {**captured, "state": None}
    said = refused(called(where, vmi(COMES, net0={"state": nobody, "target": SIM0})))
    assert said == "net0: state: the back end knew of no guest, or no state can say it\n"


def test_an_annotation_that_makes_no_sense_lets_nobody_in(running: Daemon, where: Path) -> None:
    said = refused(called(where, vmi(COMES, net0={"state": STATE})))
    assert said == "net0: expected target in the annotation vdpad/move\n"
    described = json.loads(vmi(COMES, net0={}))
    for what in ("{", "[1]", "5", '{"net0": "vdpa0"}'):
        described["metadata"]["annotations"]["vdpad/move"] = what
        said = refused(called(where, json.dumps(described)))
        assert said.startswith("vdpad/move: expected ")
        assert said.count("\n") == 1


def test_without_arguments_it_says_what_it_expects() -> None:
    done = run(*PYTHON, HOOK)
    assert done.returncode == 2
    assert "--vmi" in done.stderr
