"""Inputs as hosts have them, made small; what is right of each is for tests to say."""

import lzma
from pathlib import Path

FOLDER = Path(__file__).parent


def case(name: str) -> bytes:
    """What a file of this folder holds, decompressed."""
    data = (FOLDER / name).read_bytes()
    return lzma.decompress(data) if name.endswith(".xz") else data
