"""Gates whose clocks go when they are told to."""

from cryptography.fernet import Fernet

from vdpad.wire.admitted import MAX_ADMITTED, begin, recall, size_of
from vdpad.wire.sealing import Gate, Sealer

KEY = Fernet.generate_key()
START = 1_800_000_000
TTL = 30

# Of the host, when the clock says START.
_UP_S = 10_000
# For how long daemons have let in what came, by then.
_KNOWN_S = 1000


class Clock:
    """A host's clocks: the wall's, which is set now and then, and that of the time since boot."""

    def __init__(self) -> None:
        self.now = float(START)
        self.ahead = 0.0
        """What of it is not time that passed, but steps."""

    def __call__(self) -> float:
        return self.now

    def since_boot(self) -> int:
        """In ns."""
        return int((self.now - self.ahead - START + _UP_S) * 1e9)

    def step(self, seconds: float) -> None:
        """Sets the wall clock."""
        self.now += seconds
        self.ahead += seconds


def fresh_memory(places: int = MAX_ADMITTED) -> memoryview:
    """Memory that no daemon has had."""
    return memoryview(bytearray(size_of(places)))


def memory_of_long_ago(clock: Clock, places: int = MAX_ADMITTED) -> memoryview:
    """Memory that earlier daemons have had for so long that nothing before it is in time."""
    memory = fresh_memory(places)
    begin(memory, clock.since_boot() - int(_KNOWN_S * 1e9))
    return memory


def gate_of(clock: Clock, memory: memoryview, sealer: Sealer | None = None) -> Gate:
    """A daemon's that starts with this memory."""
    admitted = recall(memory, clock.since_boot())
    return Gate(sealer or Sealer([KEY]), TTL, admitted, clock, clock.since_boot)


def sealed(text: bytes = b"{}", at: float = START, key: bytes = KEY) -> bytes:
    """A token, by an independent client's Fernet."""
    return Fernet(key).encrypt_at_time(text, int(at))
