"""The frame by which switches learn where an address is: a request of reverse ARP, to everybody.

It asks which protocol address a hardware address has, and nobody need answer: what counts is its
sender. Hypervisors send it for guests that do not announce themselves.

Source: RFC 903, and RFC 826 for the packet's format; QEMU's net/announce.c, announce_self_create,
whose frame this is.
"""

import struct

_EVERYBODY = b"\xff" * 6
_TYPE = 0x8035
_ETHERNET, _IPV4 = 1, 0x0800
_REQUEST_REVERSE = 3
_NO_ADDRESS = bytes(4)

_HEADER = struct.Struct(">6s6sH")
_PACKET = struct.Struct(">HHBBH6s4s6s4s")

_LEAST_FRAME = 60  # of Ethernet, without its checksum


def rarp_request(mac: bytes) -> bytes:
    """The frame for an address of 6 bytes, as long as Ethernet wants it."""
    header = _HEADER.pack(_EVERYBODY, mac, _TYPE)
    sizes = len(mac), len(_NO_ADDRESS)
    packet = _PACKET.pack(
        _ETHERNET, _IPV4, *sizes, _REQUEST_REVERSE, mac, _NO_ADDRESS, mac, _NO_ADDRESS
    )
    return (header + packet).ljust(_LEAST_FRAME, b"\0")
