"""Key files: what is taken, and what is told of what is not."""

import base64
import os
import stat
from pathlib import Path
from random import Random

import pytest
from cryptography.fernet import Fernet

from tests.support.descriptors import no_descriptor_left
from vdpad.wire.keys import MAX_KEYS, BadKeys, key_file, load_keys, new_key, write_new_key

# Always the same, as tests are named for them.
ONE, OTHER = (base64.urlsafe_b64encode(Random(seed).randbytes(32)).decode() for seed in range(2))


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def told(path: Path) -> str:
    """What is said of a key file: one line, of which file, and no key."""
    with pytest.raises(BadKeys) as caught:
        load_keys(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert said.isprintable()
    assert ONE[:10] not in said
    return said


# --- reading ---


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{OTHER}\n",
        f"{ONE}\n{OTHER}",
        f"# both\r\n\r\n  {ONE}  # the new one\r\n\t{OTHER}\r\n#{OTHER}x\r\n",
    ],
    ids=["plain", "no newline at the end", "comments, blanks, CRLF"],
)
def test_keys_are_read_in_their_order(tmp_path: Path, text: str) -> None:
    assert load_keys(written(tmp_path, text)) == (ONE.encode(), OTHER.encode())


def test_as_many_keys_as_may_be_are_read(tmp_path: Path) -> None:
    assert len(load_keys(written(tmp_path, f"{ONE}\n" * MAX_KEYS))) == MAX_KEYS
    assert f"at most {MAX_KEYS}" in told(written(tmp_path, f"{ONE}\n" * (MAX_KEYS + 1)))


@pytest.mark.parametrize(
    "key",
    [
        ONE[:-1],
        ONE[:-2],
        f"{ONE}=",
        f"{ONE} {OTHER}",
        ONE.replace(ONE[5], "!", 1),
        f"{ONE[:20]}é{ONE[21:]}",
        "x",
        ONE[:40],
        f"{ONE[:-2]}{ONE}",
    ],
)
def test_what_is_no_key_is_told_with_its_line(tmp_path: Path, key: str) -> None:
    said = told(written(tmp_path, f"{OTHER}\n# old\n{key}\n"))
    assert said.startswith(f"{tmp_path}/keys, line 3: expected a Fernet key")
    assert "vdpactl keygen" in said


@pytest.mark.parametrize("text", ["", "\n\n", f"# {ONE}\n"])
def test_a_file_without_keys_is_told(tmp_path: Path, text: str) -> None:
    assert "found none; `vdpactl keygen`" in told(written(tmp_path, text))


def test_a_file_that_is_too_long_or_no_text_is_told(tmp_path: Path) -> None:
    assert "at most" in told(written(tmp_path, "#" * 17_000))
    assert "text file" in told(written(tmp_path, b"\xff\xfe"))


def test_a_file_that_is_none_leaves_no_descriptor(tmp_path: Path) -> None:
    with no_descriptor_left(), pytest.raises(BadKeys):
        load_keys(tmp_path)


def test_a_path_that_leads_to_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "No such file" in told(tmp_path / "none")
    assert "regular file" in told(tmp_path / "fifo")
    assert "directory" in told(tmp_path)
    with pytest.raises(BadKeys, match="null"):
        load_keys(Path("keys\0"))


# --- who may read it ---


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    assert f"mode {mode:04o}; chmod 0600" in told(written(tmp_path, ONE, mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_that_is_its_owners_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert load_keys(written(tmp_path, ONE, mode)) == (ONE.encode(),)


def test_a_credential_is_read_whatever_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    path = written(folder, ONE, 0o440)
    assert "mode 0440" in told(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert load_keys(path) == (ONE.encode(),)
    assert load_keys(key_file("keys")) == (ONE.encode(),)
    # Others are as before, also those that only look as if they were there.
    beside = written(tmp_path, ONE, 0o440)
    assert "mode 0440" in told(beside)
    assert "mode 0440" in told(folder / ".." / "keys")


def test_a_credential_without_systemd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(BadKeys, match="LoadCredential=keys"):
        key_file("keys")
    assert key_file("./keys") == Path("keys")


# --- making ---


def test_a_new_key_is_one_and_another_each_time() -> None:
    keys = {new_key() for _ in range(50)}
    assert len(keys) == 50
    for key in keys:
        Fernet(key)


def test_a_key_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    before = os.umask(0)
    try:
        write_new_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (key,) = load_keys(path)
    Fernet(key)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path, "precious")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for each in (path, link):
        with pytest.raises(BadKeys, match="nothing was changed"):
            write_new_key(each)
    assert path.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadKeys, match="none/keys: No such file"):
        write_new_key(tmp_path / "none" / "keys")
