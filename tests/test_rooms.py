"""The tiers are what they say, and a skipped test fails in CI, also side by side."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rooms import HERE, MACHINES, NEEDS, room_of
from tests.support.forker import forker_of

ROOT = HERE.parent
IMPORTED_BY_MANY = ("vdpad.backend.device", "vdpad.cli.state_files")
MACHINERY = re.compile(rf"tests\.({'|'.join(MACHINES)})\b")


def imports(path: Path) -> set[str]:
    """What a file imports, by its whole name."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return froms | {
        name.name for node in nodes if isinstance(node, ast.Import) for name in node.names
    }


def test_what_boots_machines_is_used_in_their_rooms_only() -> None:
    others = [path for path in HERE.rglob("*.py") if room_of(path) not in MACHINES]
    assert len(others) > 100
    # What is imported stands there as text, and in few files: those alone are parsed.
    named = [path for path in others if MACHINERY.search(path.read_text())]
    assert [path for path in named if any(map(MACHINERY.match, imports(path)))] == []


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["tests/virtio"], ""),
        (["tests/vm"], "test-kernel test-vdpa-tool"),
        (["tests/dpdk"], "test-dpdk"),
        (["tests/virtio", "tests/guest", "-v", "-n2"], "test-kernel test-qemus"),
        (["tests/qemu", "-k", "nobody_forwards"], "test-qemus"),
        (["tests/qemu", "tests/clients", "-m", "not machine"], "test-clients"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_what_chosen_tests_need(arguments: list[str], needs: str) -> None:
    done = forker_of("tests.rooms", *IMPORTED_BY_MANY).text(*arguments)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, needs, "")


def test_a_path_where_there_is_nothing_is_told() -> None:
    made = ["make", "-s", "-o", ".venv/ready", "-o", "test-packages", "test"]
    wrong = "ARGS=tests/virtio tests/nowhere.py::test_one"
    done = subprocess.run([*made, wrong], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "found nothing at tests/nowhere.py: name one" in done.stderr
    assert done.stdout == ""


def test_what_they_need_the_makefile_can_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in {each for needs in NEEDS.values() for each in needs}:
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize(
    ("ci", "code", "processes", "where"),
    [
        ("", 0, "-n0", "in the test"),
        ("true", 1, "-n0", "in the test"),
        ("true", 1, "-n0", "in its file"),
        ("true", 1, "-n2", "in the test"),
        ("true", 1, "-n2", "in its file"),
    ],
)
def test_in_ci_nothing_is_skipped(
    tmp_path: Path, ci: str, code: int, processes: str, where: str
) -> None:
    skip = 'pytest.skip("no", allow_module_level=True)'
    inside = f"    {skip}" if where == "in the test" else f"    pass\n{skip}"
    (tmp_path / "test_one.py").write_text(f"import pytest\n\ndef test_one():\n{inside}\n")
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.availability", processes),
            *("-c", os.devnull, "--rootdir", str(tmp_path), "--confcutdir", str(tmp_path)),
            str(tmp_path),
        ],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    # Whoever reads the log finds pytest's own summary at its end.
    assert re.search(r"= 1 passed, 1 skipped in [\d.]+s =+\n$", done.stdout), done.stdout
