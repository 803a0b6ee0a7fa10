"""Datagrams between hosts: sealed with keys that both ends have, and let in once, in their time.

A sealed datagram is a Fernet token (github.com/fernet/spec) of the very JSON that a Unix datagram
carries, under one of the keys of a key file:

    0x80 │ sealed at (8) │ IV (16) │ AES-128-CBC of the JSON (16 n) │ HMAC-SHA256 of all that (32)

in URL-safe base64. A client in another language needs a Fernet library and nothing else.

What a token alone does not say, and where it comes from instead:

- **Time.** The daemon's Gate lets a token in from MAX_SKEW before its own clock to a TTL after.
- **Once.** The Gate remembers 64 bits of the HMAC of each token it let in, in memory that the next
  daemon goes on with (admitted.py). It forgets none whose time is not over: when the memory is
  full, new ones are refused. Only who has a key can fill it, as nothing is remembered that did not
  open. What may have been let in and forgotten, or before the memory began, is refused.
- **Direction.** A request has a `method`, a reply a `result` or an `error`, inside the seal. The
  daemon drops what `is_reply`, unanswered; the client takes nothing else.
- **Which request.** A reply is its request's by the id, of which a client makes 128 random bits.
  So a client asks no clock: a reply of another time has another id.
- **Which host.** The key. Hosts with a common key could each be given what was sealed for the
  other, within the TTL; hosts with keys of their own cannot.

A tag in the plaintext, or a key derived for each direction, would bind direction and host too. But
then the plaintext would not be the JSON, or the token not one under the key in the file, as
docs/api.md promises to independent clients; and the JSON says direction and request already.

Sizes and time are looked at first, the keys last: what is refused costs little.
"""

import binascii
import json
import math
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from vdpad.errors import VdpadError
from vdpad.wire.admitted import Admitted, NoRoom, since_boot
from vdpad.wire.fernet import Fernet, InvalidToken, MultiFernet

_VERSION = 0x80
_BLOCK = 16
_MAC = 32
# Two of a full memory have these bytes in common once in 2^31; who has no key cannot make
# them so.
_MAC_TOLD = 8
# Beside the ciphertext: version, time, IV, HMAC.
_FRAME = 1 + 8 + 16 + _MAC
# The base64 of version and time.
_HEAD_CHARACTERS = 12

# IPv4's length field, less its header and UDP's (RFC 791, RFC 768).
_UDP_PAYLOAD = 65507
_BLOCKS = (_UDP_PAYLOAD // 4 * 3 - _FRAME) // _BLOCK

MAX_TEXT = _BLOCKS * _BLOCK - 1
"""What can be sealed, in bytes: 49055, as padding takes at least one."""

MAX_TOKEN = -(-(_FRAME + _BLOCKS * _BLOCK) // 3) * 4
"""What a sealed datagram can be, in bytes. Stops work from being the sender's choice."""

MAX_SKEW = 10
"""How far ahead a sender's clock may be, in seconds."""

_STANDARD = bytes.maketrans(b"-_", b"+/")


class Reason(StrEnum):
    """Why a datagram gets no answer."""

    TOO_LONG = "too-long"
    FOREIGN = "foreign"
    """Nothing that was ever a token."""
    TRUNCATED = "truncated"
    """It begins as a token, and its length is none that a token has."""
    EXPIRED = "expired"
    EARLY = "early"
    """Sealed by a clock that is too far ahead."""
    REPLAYED = "replayed"
    WRONG_KEY = "wrong-key"
    """Of another key, or altered; they look the same."""
    FULL = "full"
    """It may be in order, and the Gate can remember no more."""
    REFLECTED = "reflected"
    """A reply where requests are expected."""


class NotOpened(VdpadError):
    """A datagram that is not let in."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CannotSeal(VdpadError, ValueError):
    """A text that is too long for a datagram."""


class Sealer:
    """Seals with the first of some keys, and opens with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """
        Args:
            keys: as `load_keys` gives them.
        """
        self._keys = MultiFernet([Fernet(key) for key in keys])

    def seal(self, text: bytes) -> bytes:
        """A token of a text, another one each time.

        Raises:
            CannotSeal: longer than MAX_TEXT.
        """
        if len(text) > MAX_TEXT:
            raise CannotSeal(f"expected at most {MAX_TEXT} bytes to seal, got {len(text)}")
        return self._keys.encrypt(text)

    def open(self, token: bytes) -> bytes:
        """The text of a token, whenever it was sealed.

        Raises:
            NotOpened: too-long, foreign, truncated, wrong-key.
        """
        _sealed_at(token)
        _mac_of(token)
        return self.decrypt(token)

    def decrypt(self, token: bytes) -> bytes:
        """The text of what has a token's form.

        Raises:
            NotOpened: wrong-key.
        """
        try:
            return self._keys.decrypt(token)
        except InvalidToken:
            raise NotOpened(Reason.WRONG_KEY, "sealed with none of the keys, or altered") from None


class Gate:
    """Opens what comes to a daemon: each token once, in its time."""

    def __init__(
        self,
        sealer: Sealer,
        ttl_s: int,
        admitted: Admitted,
        now: Callable[[], float] = time.time,
        since_boot: Callable[[], int] = since_boot,
    ) -> None:
        """
        Args:
            sealer: may be set anew when keys change; what was let in stays known.
            ttl_s: how long after its sealing a token is let in, in seconds.
            admitted: what was let in, by this daemon and those before it.
            now: the clock by which both ends go, in seconds since 1970.
            since_boot: a clock that nobody sets, in ns.
        """
        self.sealer = sealer
        self._ttl = ttl_s
        self._admitted = admitted
        self._now = now
        self._since_boot = since_boot

    def admit(self, token: bytes) -> bytes:
        """The text of a token.

        Raises:
            NotOpened: with its reason. Nothing is remembered of the token then.
        """
        sealed_at = _sealed_at(token)
        now = self._now()
        self._check_time(sealed_at, now)
        mac = _mac_of(token)
        if mac in self._admitted:
            raise NotOpened(Reason.REPLAYED, "came before")
        text = self.sealer.decrypt(token)
        try:
            over, early = int(now) - self._ttl, int(now) + MAX_SKEW
            self._admitted.add(sealed_at, mac, over, early)
        except NoRoom as error:
            raise NotOpened(Reason.FULL, str(error)) from None
        return text

    def _check_time(self, sealed_at: int, now: float) -> None:
        age = int(now) - sealed_at
        if age < -MAX_SKEW:
            raise NotOpened(Reason.EARLY, f"sealed {-age} s ahead of this host's clock")
        if age > self._ttl:
            what = f"older than the TTL of {self._ttl} s"
            raise NotOpened(Reason.EXPIRED, f"sealed {age} s ago by its sender's clock; {what}")
        unknown = max(self._admitted.floor, self._known_from(now)) - sealed_at
        if unknown > 0:
            what = f"{unknown} s too early for this daemon to know whether it had come before"
            raise NotOpened(Reason.EXPIRED, f"sealed {age} s ago by its sender's clock; {what}")
        if self._admitted.is_shut(sealed_at):
            what = "this host's clock was here before, and what was let in then is forgotten"
            raise NotOpened(Reason.EXPIRED, f"sealed {age} s ago by its sender's clock; {what}")

    def _known_from(self, now: float) -> int:
        """From when on nothing can have been let in before the memory began, by the clock now.

        A clock that was wrong when it began, and was put right since, tells it right.
        """
        known_for = (self._since_boot() - self._admitted.began) / 1e9
        # Who let it in then may have done so from a clock ahead.
        return math.ceil(now - known_for) + MAX_SKEW + 1


def is_reply(text: bytes) -> bool:
    """Whether an opened text is a JSON-RPC reply, and so nothing that a daemon is asked."""
    # No reply is without these bytes, and hardly any request has them: no need to parse it twice.
    if b'"result"' not in text and b'"error"' not in text:
        return False
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(message, dict)
        and "method" not in message
        and ("result" in message or "error" in message)
    )


def _sealed_at(token: bytes) -> int:
    """When a token says that it was sealed, in seconds since 1970. Looks at its beginning only.

    Raises:
        NotOpened: too-long, foreign.
    """
    if len(token) > MAX_TOKEN:
        raise NotOpened(Reason.TOO_LONG, f"more than {MAX_TOKEN} bytes")
    head = _decoded(token[:_HEAD_CHARACTERS])
    if len(head) != 9 or head[0] != _VERSION:
        raise NotOpened(Reason.FOREIGN, "no Fernet token")
    return int.from_bytes(head[1:], "big")


def _mac_of(token: bytes) -> int:
    """What tells a token from all others: 64 bits of its HMAC.

    Raises:
        NotOpened: foreign, truncated.
    """
    if len(token) % 4:
        raise NotOpened(Reason.TRUNCATED, f"{len(token)} bytes; base64 has a multiple of 4")
    # Not of the text: a token has many that Fernet takes, as it skips what is no base64 and stops
    # at padding. What is looked at here must be what Fernet will see, so the base64 must be strict.
    raw = _decoded(token)
    ciphertext = len(raw) - _FRAME
    if ciphertext < _BLOCK or ciphertext % _BLOCK:
        raise NotOpened(Reason.TRUNCATED, f"{ciphertext} bytes of ciphertext; blocks have 16")
    return int.from_bytes(raw[-_MAC : _MAC_TOLD - _MAC], "little")


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text.translate(_STANDARD), strict_mode=True)
    except binascii.Error:
        raise NotOpened(Reason.FOREIGN, "no Fernet token") from None
