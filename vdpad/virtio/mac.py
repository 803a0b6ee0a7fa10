"""MAC addresses as people write them: six bytes in hexadecimal, with colons between them."""

import re

MAC_PATTERN = r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}"
"""All of such an address; the same in JSON Schema's dialect."""

_MAC = re.compile(MAC_PATTERN)


def format_mac(mac: bytes) -> str:
    """An address of 6 bytes, in small letters."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes | None:
    """The 6 bytes of an address; None where it is none."""
    return bytes.fromhex(text.replace(":", "")) if _MAC.fullmatch(text) else None
