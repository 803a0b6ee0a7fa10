"""The commands in locales that do not know every letter: nothing fails for that, in no direction.

C, which Python makes UTF-8 of, the same where it may not, and a real Latin-1, which localedef makes
for the tests.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.availability import skip_or_fail
from tests.cli.commands import MODULE as VDPACTL
from tests.cli.commands import OF_STATES
from tests.daemon.support import STATE, faulty, vlans
from tests.support.daemon import MODULE as VDPAD
from tests.support.daemon import daemon
from tests.support.forker import Child, forker_of
from tests.support.waiting import GUARD

Json = dict[str, Any]
Locale = Mapping[str, str]

LATIN_1 = "en_US.ISO-8859-1"
OTHERS = {
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
# In that locale's bytes: all of them letters, letters of its own only, no text at all as UTF-8.
FILES = [b"state.json", "état.json".encode(), "état.json".encode("latin-1"), "€.json".encode()]


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> Locale:
    localedef = shutil.which("localedef")
    there = localedef is not None and Path("/usr/share/i18n/charmaps").is_dir()
    skip_or_fail(None if there else "no localedef with its sources (Debian: locales)")
    folder = tmp_path_factory.mktemp("locales")
    command = [str(localedef), "-i", "en_US", "-f", "ISO-8859-1", str(folder / LATIN_1)]
    subprocess.run(command, check=True, capture_output=True, timeout=GUARD)
    return {"LC_ALL": LATIN_1, "LOCPATH": str(folder)}


@pytest.fixture(params=["Latin-1", *OTHERS])
def locale(request: pytest.FixtureRequest) -> Locale:
    if request.param in OTHERS:
        return OTHERS[request.param]
    found: Locale = request.getfixturevalue("latin_1")
    return found


def run(
    locale: Locale, module: str, *arguments: str | bytes | Path, stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """A command, whatever its end, without a traceback."""
    there = {**os.environ, **locale}
    more = [OF_STATES] if module == VDPACTL else []
    done = forker_of(module, *more, **locale).run(*arguments, stdin=stdin, env=there, timeout=GUARD)
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert b"UnicodeEncodeError" not in done.stderr
    return done


def test_the_locale_is_a_real_one(latin_1: Locale) -> None:
    program = "import sys; print(sys.stdout.encoding, sys.getfilesystemencoding())"
    command, there = [sys.executable, "-c", program], {**os.environ, **latin_1}
    done = subprocess.run(command, env=there, capture_output=True, timeout=GUARD, check=True)
    assert done.stdout.split() == [b"iso8859-1", b"iso8859-1"]


# --- output ---


def test_letters_of_its_own_are_its_own(latin_1: Locale) -> None:
    done = run(latin_1, VDPACTL, "decode", "-", stdin=json.dumps(STATE).encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"32 packets or 50 \xb5s" in done.stdout
    done = run(OTHERS["ASCII"], VDPACTL, "decode", "-", stdin=json.dumps(STATE).encode())
    assert b"32 packets or 50 us" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        [VDPACTL, "--help"],
        *([VDPACTL, method, "--help"] for method in ("check", "capture")),
        [VDPAD, "--help"],
    ],
)
def test_every_help_can_be_read(locale: Locale, command: list[str]) -> None:
    done = run(locale, *command)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_letter_that_it_has_not_got(locale: Locale, tmp_path: Path) -> None:
    with daemon(tmp_path, software=[faulty("err", *range(100))]) as running:
        command = [VDPACTL, "--socket", str(running.socket), "restore", "vm", "-"]
        state = json.dumps(vlans([1, 100])).encode()
        done = run(locale, *command, "--software", "sim0", stdin=state)
    assert done.returncode == 4
    assert done.stdout.rstrip().endswith((b"... and 36 more", "… and 36 more".encode()))


def test_what_is_wrong_with_a_state_is_told(locale: Locale) -> None:
    wrong = json.dumps({"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [5000]})
    done = run(locale, VDPACTL, "decode", "-", stdin=wrong.encode())
    assert done.returncode == 2
    assert b"vlans.0" in done.stdout
    assert b"expected a VLAN id 0 " in done.stdout


# --- names of files ---


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_whatever_its_name(locale: Locale, name: bytes, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_text(json.dumps(STATE))
    done = run(locale, VDPACTL, "decode", path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b": a state in JSON" in done.stdout
    if locale["LC_ALL"] == LATIN_1 and b"\x82" not in name:
        assert name in done.stdout
    done = run(locale, VDPACTL, "diff", path, path + b".none")
    assert done.returncode == 2
    assert b"No such file" in done.stderr


def test_a_file_is_written_whatever_its_name(locale: Locale, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "état")
    state = json.dumps(STATE).encode()
    done = run(locale, VDPACTL, "convert", "-", "--to", "native", "--output", path, stdin=state)
    assert (done.returncode, done.stderr) == (0, b"")
    (file,) = json.loads(run(locale, VDPACTL, "decode", path, "-j").stdout)
    assert file["format"] == "native"


def test_a_daemon_that_is_not_there(locale: Locale) -> None:
    done = run(locale, VDPACTL, "--socket", b"/nowhere/" + FILES[2], "info")
    assert done.returncode == 7
    assert b"is vdpad running?" in done.stderr


# --- arguments ---


def test_arguments_are_taken_in_the_locale_s_letters(latin_1: Locale, tmp_path: Path) -> None:
    """What the daemon is asked for is what was typed."""
    with daemon(tmp_path) as running:
        command = [VDPACTL, "--socket", str(running.socket), "check", "-", "--json", "--target"]
        target = '{"kind": "vhost-vdpa", "device": "é"}'.encode("latin-1")
        done = run(latin_1, *command, target, stdin=json.dumps(STATE).encode())
    error = json.loads(done.stdout)["error"]
    assert error["data"]["kind"] == "no-such-device"
    assert "'é'" in error["message"] or "vdpa is not loaded" in error["message"]


@pytest.mark.parametrize("word", ["é".encode(), b"\xe9"])
def test_arguments_that_make_no_sense_are_refused(
    locale: Locale, word: bytes, tmp_path: Path
) -> None:
    state = json.dumps(STATE).encode()
    with daemon(tmp_path) as running:
        command = [VDPACTL, "--socket", str(running.socket)]
        for arguments, codes in (
            (["restore", word, "-", "--software", "sim0"], {2}),
            # There is none, or it is no text.
            (["check", "-", "--software", word], {1, 2}),
            (["release", word], {1, 2}),
            (["check", "-", "--target", b'{"kind": "' + word + b'"}'], {2}),
            (["selftest", word], {9}),
            (["--host", word, "--key-file", word, "info"], {2}),
            (["capture", "--qmp", b"/" + word, "--features", word], {2}),
            (["capture", "--qmp", b"/" + word, "--features", "MQ"], {7}),
            (["keygen", b"/nowhere/" + word], {2}),
            ([word], {2}),
            (["info", b"--" + word], {2}),
        ):
            done = run(locale, *command, *arguments, stdin=state)
            assert done.returncode in codes, (arguments, done)


# --- the daemon ---

NAME = "€"


def test_settings_with_names_that_the_locale_has_not_got(locale: Locale, tmp_path: Path) -> None:
    config = tmp_path / "vdpad.toml"
    for key in (f'"{NAME}"', "socket_group", "key_file"):
        config.write_text(f'{key} = "{NAME}"\n')
        done = run(locale, VDPAD, "--check-config", "--config", str(config))
        assert done.returncode in (0, 1)
        assert (done.stderr == b"") is (done.returncode == 0)


@contextmanager
def _running(locale: Locale, *arguments: str) -> Iterator[tuple[Child, BinaryIO]]:
    """A daemon, and what it tells."""
    reading, writing = os.pipe()
    with open(reading, "rb") as telling:
        with open(writing, "wb") as its:
            there = {**os.environ, **locale}
            child = forker_of(VDPAD, **locale).start(*arguments, stderr=its, env=there)
        try:
            yield child, telling
        finally:
            child.kill()
            child.wait()


@pytest.mark.parametrize(
    "settings",
    [
        'records.directory = "{}"',
        'metrics.textfile = "{}.prom"',
        'software = [{{ name = "sim0", state_file = "{}" }}]',
    ],
)
def test_a_daemon_serves_whatever_its_files_are_called(
    locale: Locale, settings: str, tmp_path: Path
) -> None:
    config = tmp_path / "vdpad.toml"
    socket = str(tmp_path / "vdpad.sock")
    config.write_text(settings.format(tmp_path / NAME) + "\n")
    with _running(locale, "--socket", socket, "--config", str(config)) as (running, telling):
        told = b""
        while b'"listening"' not in told:
            line = telling.readline()
            assert line, told
            told += line
        state = json.dumps(STATE).encode()
        command = [VDPACTL, "--socket", socket, "restore", "vm", "-", "--software", "sim0"]
        assert run(locale, *command, stdin=state).returncode == 0
        running.send_signal(signal.SIGTERM)
        told += telling.read()
        assert running.wait(GUARD) == 0
    assert b"Traceback" not in told
    assert b"internal-error" not in told


@pytest.mark.parametrize(
    "settings", ['socket = "{}"', 'udp = {{ listen = "::1:7", key_file = "{}" }}']
)
def test_a_daemon_that_cannot_start_says_why(locale: Locale, settings: str, tmp_path: Path) -> None:
    config = tmp_path / "vdpad.toml"
    config.write_text(settings.format(tmp_path / "none" / NAME) + "\n")
    done = run(locale, VDPAD, "--config", str(config))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"vdpad: ")
