"""The examples in other languages do what they say, where no datagram's reply would reach them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .programs import CACHE, EXAMPLES, SHARED, fetched, installed, run, run_in_a_container

STATE = EXAMPLES / "state.json"
DONE = [
    "compatible: true",
    "prepared: prepared",
    "committed: restored",
    "status: restored",
]


def done(said: subprocess.CompletedProcess[str]) -> bool:
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines() == DONE
    return True


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in Go, built."""
    program = tmp_path_factory.mktemp("go") / "restore"
    env = {"GOCACHE": str(CACHE / "go-built"), "CGO_ENABLED": "0", "GO111MODULE": "off"}
    built = run(fetched("go"), "build", "-o", program, EXAMPLES / "restore.go", env=env)
    assert built.returncode == 0, built.stderr
    return program


def test_node(path: Path) -> None:
    assert done(run(installed("node"), EXAMPLES / "restore.js", path, STATE, "node-1"))


def test_go(go_program: Path, path: Path) -> None:
    assert done(run(go_program, path, STATE, "go-1"))


def test_node_in_a_container(path: Path, folder: Path) -> None:
    there = SHARED / path.name
    program = EXAMPLES / "restore.js"
    assert done(run_in_a_container(folder, installed("node"), program, there, STATE, "node-2"))


def test_go_in_a_container(go_program: Path, path: Path, folder: Path) -> None:
    there = SHARED / path.name
    assert done(run_in_a_container(folder, go_program, there, STATE, "go-2"))


def test_the_container_is_one(path: Path, folder: Path) -> None:
    said = run_in_a_container(folder, "sh", "-c", f"ls {folder} {SHARED}; ls /sys/class/net")
    assert str(folder) in said.stdout
    assert "io.vdpad" in said.stdout.split(f"{SHARED}:")[1]
    assert "io.vdpad" not in said.stdout.split(f"{SHARED}:")[0]


@pytest.mark.parametrize("language", ["node", "go"])
def test_an_error_is_told(go_program: Path, path: Path, language: str) -> None:
    program = [installed("node"), EXAMPLES / "restore.js"] if language == "node" else [go_program]
    said = run(*program, path, EXAMPLES / "state-hash-report.json", "no/such name")
    assert said.returncode != 0
    assert "org.varlink.service.InvalidParameter" in said.stderr
