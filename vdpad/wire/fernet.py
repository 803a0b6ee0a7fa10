"""Fernet tokens (github.com/fernet/spec), of cryptography, which only who asks other hosts needs.

It is as large as all else together, so a package of its own brings it.
"""

from vdpad.errors import VdpadError


class NoCryptography(VdpadError, ImportError):
    """cryptography is not installed; also an ImportError, as importing this is what fails."""


try:
    from cryptography.fernet import Fernet as Fernet
    from cryptography.fernet import InvalidToken as InvalidToken
    from cryptography.fernet import MultiFernet as MultiFernet
except ModuleNotFoundError as error:
    raise NoCryptography(
        "requests between hosts are sealed, and the Python package cryptography, which does that, "
        "is not installed: apt-get install vdpad-remote, or pip install 'vdpad[remote]'"
    ) from error
