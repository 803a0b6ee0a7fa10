"""How much address space a back end may need, beside the memory that its front end shares."""

from vdpad.service.address_space import check_address_space

NEEDED_MIB = 700
"""50 for the code and 90 for numpy, which relaying needs; 223 for datagrams at the control socket
that are being answered or wait, and 237 for connections and their replies, as the daemon has them;
50 for 200 threads; 50 for states, and the rings of two devices."""


def check_room() -> None:
    """Refuses an address space that is too small, where it is bounded.

    Raises:
        TooLittleSpace
    """
    check_address_space(
        NEEDED_MIB,
        "the memory that the front end shares comes on top; raise it by that, or bound memory by "
        "MemoryMax= instead",
    )
