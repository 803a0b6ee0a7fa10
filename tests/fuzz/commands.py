"""Commands: what is decoded is encoded to as many bytes, and is decoded from them again."""

from contextlib import suppress

from vdpad.virtio.commands import DecodeError, MqHashConfig, MqRssConfig, decode_command

# Linux sends a byte behind the key, which is read and not written.
_PADDED = (MqHashConfig, MqRssConfig)


def one(data: bytes) -> None:
    """A chain's readable bytes."""
    with suppress(DecodeError):
        command = decode_command(data)
        encoded = command.encode()
        # Reserved words are read whatever they hold, and written as zeros.
        assert len(data) - len(encoded) in ((0, 1) if isinstance(command, _PADDED) else (0,))
        assert encoded[:2] == data[:2]
        again = decode_command(encoded)
        assert again == command
        assert again.encode() == encoded
        assert command.arguments() == again.arguments()
