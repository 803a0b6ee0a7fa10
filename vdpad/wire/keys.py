"""Key files: what both ends of a sealed datagram have.

One Fernet key a line; `#` begins a comment. The first key seals, all of them open, so that keys can
be changed without a moment in which the ends do not understand each other: add the new key at the
end on both sides, then move it to the front, then take the old one away.

Who reads a key file may ask the daemon for anything. So it must be its owner's alone, but for those
in $CREDENTIALS_DIRECTORY, whose access is systemd's to arrange. No message here shows a key.
"""

import base64
import binascii
import os
import stat
from contextlib import suppress
from pathlib import Path

from vdpad.errors import VdpadError, why

# A foreign datagram is held against each key, so these bound what refusing one costs.
MAX_KEYS = 8
# Stops a wrong path, such as /dev/zero or a log, from being read to its end.
_MAX_FILE = 16 * 1024

# github.com/fernet/spec, "Key Format": 128 bits to sign and 128 to encrypt, in URL-safe base64.
_KEY_BYTES = 32
_KEY_CHARACTERS = 44

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class BadKeys(VdpadError):
    """A key file that cannot be used or made."""


def key_file(name: str) -> Path:
    """Where the keys are that a setting names.

    Args:
        name: a path, or without any slash the name of a systemd credential.

    Raises:
        BadKeys: a credential, and systemd has given none.
    """
    if "/" in name:
        return Path(name)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise BadKeys(
            f"{name}: expected a path with a slash, or the name of a systemd credential; there are "
            f"no credentials: give the unit LoadCredential={name}:/path"
        )
    return Path(folder, name)


def load_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a file, 1 … MAX_KEYS of them; the first one seals.

    Raises:
        BadKeys: unreadable, readable by others, or not a list of keys.
    """
    keys = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        key = line.partition("#")[0].strip()
        if key:
            keys.append(_checked(key, f"{path}, line {number}"))
    if not keys:
        raise BadKeys(f"{path}: expected a key, found none; `vdpactl keygen` makes one")
    if len(keys) > MAX_KEYS:
        raise BadKeys(f"{path}: expected at most {MAX_KEYS} keys, got {len(keys)}; remove old ones")
    return tuple(keys)


def new_key() -> str:
    """A key from the kernel's random numbers, as a line of a key file."""
    return base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode()


def write_new_key(path: Path) -> None:
    """Makes a key file with one new key, readable by its owner only.

    Raises:
        BadKeys: there is something already, which stays as it is; or it cannot be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise BadKeys(
            f"{path}: expected nothing there, and nothing was changed; to rotate, add the output "
            "of `vdpactl keygen` as a line"
        ) from error
    except (OSError, ValueError) as error:
        raise BadKeys(f"{path}: {why(error)}") from error
    try:
        with os.fdopen(fd, "w") as file:
            file.write(f"{new_key()}\n")
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise BadKeys(f"{path}: {why(error)}") from error


def _read(path: Path) -> str:
    try:
        # Not blocking, as a FIFO would have us wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Closed apart from the file, which is not there where this is a directory.
            with open(fd, "rb", closefd=False) as file:
                _refuse_open_to_others(path, os.fstat(fd))
                data = file.read(_MAX_FILE + 1)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise BadKeys(f"{path}: {why(error)}") from error
    if len(data) > _MAX_FILE:
        raise BadKeys(f"{path}: expected at most {_MAX_FILE} bytes; is this a key file?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadKeys(f"{path}: expected a text file of keys, got other bytes") from error


def _refuse_open_to_others(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadKeys(f"{path}: expected a regular file")
    if status.st_mode & _OTHERS and not _is_credential(path):
        raise BadKeys(
            f"{path}: expected a file that only its owner may use, got mode "
            f"{stat.S_IMODE(status.st_mode):04o}; chmod 0600 it, and make new keys if others may "
            "have read it"
        )


def _is_credential(path: Path) -> bool:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.resolve().is_relative_to(Path(str(folder)).resolve())


def _checked(key: str, place: str) -> bytes:
    with suppress(ValueError):  # binascii.Error is one; so is a character beyond ASCII
        standard = key.encode("ascii").translate(bytes.maketrans(b"-_", b"+/"))
        if len(binascii.a2b_base64(standard, strict_mode=True)) == _KEY_BYTES:
            return key.encode("ascii")
    raise BadKeys(
        f"{place}: expected a Fernet key, {_KEY_CHARACTERS} characters of URL-safe base64, got "
        f"{len(key)} that are none; `vdpactl keygen` makes one"
    )
