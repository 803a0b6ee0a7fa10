"""The addresses that a device may show: its own, and those that it was given for guests.

Some devices keep through a reset what a guest has set (mlx5_vdpa, vdpa_sim_net). Whoever has such a
one next would take a guest's address for the device's own. So each address is noted before the
device is given it, and the note is kept where it outlives this process (kept_addresses.py),
whatever becomes of the guest's settings. A device that shows one of them has its own back when this
process gives it back (own_address.py); one that shows any other has been given that by somebody
else meanwhile, and it is its own.
"""

from collections.abc import Callable, Iterable

MOST = 16
"""Of those that are noted at a time. More than one are only until the device has answered, and
where commands were cut off."""


class Addresses:
    """Those of one device."""

    def __init__(self, own: bytes, given: Iterable[bytes] = ()) -> None:
        """
        Args:
            own: what it had before any guest.
            given: what it may show instead.
        """
        self.own = own
        self.changed: Callable[[], None] = lambda: None
        """Called before an address is given, and once the device has its own back."""
        self._given = tuple(given)

    @property
    def given(self) -> tuple[bytes, ...]:
        """What it may show beside its own, the latest last."""
        return self._given

    def gives(self, mac: bytes) -> None:
        """The device is about to be given an address."""
        if mac not in (self.own, *self._given):
            self._given = (*self._given, mac)[-MOST:]
            self.changed()

    def shows_only(self, given: Iterable[bytes]) -> None:
        """The device has answered: it shows one of these, or its own."""
        self._given = tuple(each for each in given if each != self.own)

    def has_its_own(self) -> None:
        """The device shows its own."""
        if self._given:
            self._given = ()
            self.changed()
