"""The kit's VMMs lend a ring to a daemon, and say what came of it; each in its language."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.programs import EXAMPLES, run
from tests.kit.building import RUST, SANITIZED, C, compiled_c, compiled_rust, compiled_rust_tests
from tests.support.daemon import Daemon, daemon
from vdpad.state.formats import native, recognise

STATE = EXAMPLES / "state.json"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("kit")) as each:
        yield each
        assert "Traceback" not in each.log()


def _built(language: str, folder: Path) -> Path:
    if language == "Rust":
        return compiled_rust(folder / "vmm", RUST / "examples" / "vmm" / "main.rs")
    sources = (C / "vmm.c", C / "device.c")
    return compiled_c(folder / "vmm", *sources, more=SANITIZED if "sanitized" in language else ())


@pytest.fixture(scope="module", params=["C", "C, sanitized", "Rust"])
def vmm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VMM, built."""
    return _built(request.param, tmp_path_factory.mktemp("vmm"))


class Lending:
    """What a VMM did with a daemon."""

    def __init__(self, vmm: Path, socket: Path, folder: Path) -> None:
        self.log = folder / "vm.log"
        self._command = (vmm, socket, STATE, self.log)

    def run(self, *options: str, state: Path = STATE) -> "subprocess.CompletedProcess[str]":
        """Its end, with nothing on standard error."""
        vmm, socket, _, log = self._command
        done = run(vmm, *options, socket, state, log)
        assert done.stderr == ""
        return done

    def fails(self, *options: str, state: Path = STATE) -> list[str]:
        """The lines that it prints."""
        done = self.run(*options, state=state)
        assert done.returncode == 1
        return done.stdout.splitlines()


@pytest.fixture
def lending(vmm: Path, running: Daemon, tmp_path: Path) -> Lending:
    return Lending(vmm, running.socket, tmp_path)


def test_restored_and_recorded_on(lending: Lending) -> None:
    done = lending.run()
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "prepared: 37 commands",
            "restored: 37 of 37 commands",
            "the guest goes on at 37, its command is acked with 0",
        ],
    )
    with lending.log.open("rb") as log:
        (found,) = recognise.read(log).devices
    assert found.state is not None
    assert found.missing == ()
    sent = native.decode(STATE.read_bytes()).state
    assert sent is not None
    assert found.state == sent.model_copy(update={"vlans": (*(sent.vlans or ()), 2457)})


def test_rejected_with_its_name(lending: Lending) -> None:
    assert lending.fails("-r", "2.0") == [
        "prepared: 37 commands",
        "rejected: the device refused 23 of 37 commands",
        "first: VLAN_ADD vid=1",
        "applied: 14 of 37",
        "the device must be reset: no",
    ]


@pytest.mark.parametrize("option", ["-s", "-x"], ids=["silent", "swapped"])
def test_timeout(lending: Lending, option: str) -> None:
    _, failed, *rest = lending.fails(option)
    assert failed.startswith("timeout: 37 of 37 commands were not answered by the deadline")
    assert "the device has returned nothing; " in failed
    assert rest == [
        "first: MAC_ADDR_SET mac=52:54:00:12:34:56",
        "applied: 0 of 37",
        "the device must be reset: yes",
    ]


def test_bad_lend(lending: Lending) -> None:
    assert lending.fails("-b") == [
        "prepared: 37 commands",
        "bad-lend: expected an eventfd as the call, got another kind of descriptor",
        "the device must be reset: no",
    ]


def test_a_state_that_does_not_fit(lending: Lending, tmp_path: Path) -> None:
    state = json.loads(STATE.read_text())
    state["rss"]["indirection_table"] = [0] * 256
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert lending.fails(state=tmp_path / "state.json")[0].startswith("incompatible: ")


def test_nobody_answers(vmm: Path, tmp_path: Path) -> None:
    done = run(vmm, tmp_path / "none.sock", STATE, tmp_path / "vm.log")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No such file or directory" in done.stderr


def test_the_crate_s_own_tests(tmp_path: Path) -> None:
    done = run(compiled_rust_tests(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "0 failed" in done.stdout


def test_a_vmm_asks_for_whatever_method(running: Daemon, tmp_path: Path) -> None:
    """Of those for which the crate has no function."""
    ask = compiled_rust(tmp_path / "ask", Path(__file__).with_name("ask.rs"))
    done = run(ask, running.socket, "cancel", '{"migration":"vm-none"}')
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "no-such-migration"
