"""Device parts by hand, from the specification's structures and not from our encoder.

Spaces set apart: type, flags and reserved; selector; length; value.
"""

from tests.support.states import KEY_HEX

# CTRL_VQ, CTRL_RX, CTRL_VLAN, CTRL_RX_EXTRA, MQ, CTRL_MAC_ADDR, HASH_REPORT, RSS
FEATURES = frozenset({17, 18, 19, 20, 22, 23, 57, 60})
DRV_FEATURES = "0101 00 00  0000000000000000  08000000  0000de0000000012"
NO_FEATURES = "0101 00 00  0000000000000000  08000000  0000000000000000"

# The API page's state, in the specification's order, without what no part carries.
SAMPLE = bytes.fromhex(
    # bits 1, 2, 5, 7, 17 … 20, 22, 23, 51 … 53, 60
    "0101 00 00  0000000000000000  08000000  a600de0000003810"
    "0002 00 00  0000 000000000000  01000000  00"
    "0002 00 00  0001 000000000000  01000000  00"
    "0002 00 00  0002 000000000000  01000000  00"
    "0002 00 00  0003 000000000000  01000000  00"
    "0002 00 00  0004 000000000000  01000000  00"
    "0002 00 00  0005 000000000000  01000000  00"
    "0002 00 00  0100 000000000000  14000000  01000000 525400000007 01000000 01005e000001"
    "0002 00 00  0101 000000000000  06000000  525400123456"
    "0002 00 00  0200 000000000000  ce000000  0100 0500"
    + "".join(vid.to_bytes(2, "little").hex() for vid in range(100, 201))
    + "0002 00 00  0400 000000000000  02000000  0400"
    "0002 00 00  0401 000000000000  3b000000"
    "03000000 0300 0000  0000 0100 0200 0300  0400 28" + KEY_HEX
)


def cvq_part(code: str, value: str, flags: str = "00") -> str:
    """A CVQ_CFG_PART of a class and a command."""
    length = len(bytes.fromhex(value)).to_bytes(4, "little").hex()
    return f"0002 {flags} 00  {code} 000000000000  {length}  {value}"
