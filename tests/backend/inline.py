"""A device's CVQ that is served in the doorbell: for what a real device would do in its time."""

from collections.abc import Callable

from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry, lay_out

MEMORY = Region(0x1000, 1 << 18)


class InlineQueue:
    """Implements ControlQueue: `serve` gives the answer to each command."""

    def __init__(
        self, serve: Callable[[bytes], bytes], *, event_idx: bool = True, size: int = 4
    ) -> None:
        self.geometry: SplitGeometry = lay_out(size, MEMORY)
        self.worth_polling = True
        self.next_index = 0
        self.commands: list[bytes] = []
        self._serve = serve
        self._bytes = bytearray(MEMORY.size)
        memory = GuestMemory()
        memory.add(MEMORY, memoryview(self._bytes))
        self.ring = DriverRing(memoryview(self._bytes), self.geometry, event_idx=event_idx)
        self._device = DeviceRing(
            memory, self.geometry.addresses, next_available=0, event_idx=event_idx, indirect=False
        )
        self._device.idle()

    def kick(self) -> None:
        """Serves all that is there."""
        for chain in self._device.take():
            self.commands.append(chain.readable)
            answer = self._serve(chain.readable)[: chain.room]
            self._device.answer(chain, answer)
            self._device.put(chain.head, len(answer))
        self._device.idle()

    async def called(self, seconds: float) -> None:
        """Nobody waits for this."""
        raise AssertionError("everything is served by the doorbell")

    def close(self) -> None:
        """Nothing is held."""
