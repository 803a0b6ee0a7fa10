"""The relay with one rule of its order broken, for each rule; the model must catch every one."""

from dataclasses import dataclass, field

from tests.backend.relay.model.mutants import Change, Changes, Mutant
from vdpad.backend.relay import relay, written


@dataclass(frozen=True)
class Mutation:
    """What is changed."""

    rule: str
    """The rule's number, and how it is broken."""
    changes: tuple[Change, ...] = ()
    """Of the relay."""
    ways: dict[str, bool] = field(default_factory=dict)
    """Of what stands around it, as the fields of Ways have it."""

    def mutant(self) -> Mutant:
        """The relay that it makes."""
        return Changes(self.changes).mutant()

    def __str__(self) -> str:
        return self.rule


def _of_relay(rule: str, *changes: tuple[str, str]) -> Mutation:
    return Mutation(rule, tuple(Change(relay, before, after) for before, after in changes))


_COPY = "        self._ours.contents[:] = self._guests.contents[:]\n"
_GIVE_BACK = """        if new != old:
            self._give_back(old, distance(new, old))
"""
_MARK_DATA = '        self._written.mark(self._each(b"".join(elements), old, count))\n'
_AS_THEY_STAND = '        self._written.mark(b"".join(elements))\n'
_STORE_ELEMENTS = """        for at, contents in zip(stretches, elements, strict=True):
            self._guests.contents[at] = contents
"""
_STORE_INDEX = "        self._guests.words[_INDEX] = self._seen\n"
_FENCED_STORE = "        ordering_fence()\n" + _STORE_INDEX
_MARK_RING = "        self._log.mark(self._place.iova, self._place.size)\n"
_FENCED_MARK = "        ordering_fence()\n" + _MARK_RING
_PASSED_ON = "        self._guests.words[self._wish_at] = wish\n"
_NOTHING = "        if new == old and not moved:\n"
_CALLS = "calls=new != old and self._guest_wants_call(new, old)"
_KICKS = "kicks=moved and self._device_wants_kick(wish)"

_MARK_AND_GIVE_BACK = """        if new != old:
            self._log.mark(self._place.iova, self._place.size)
            self._give_back(old, distance(new, old))
"""
_MARK_IF_UNSET = """        at = (self._place.iova >> 12) - self._log.first_page
        if not self._log._stores.load(self._log.bits, at >> 3) >> (at & 7) & 1:
            self._log.mark(self._place.iova, self._place.size)
"""
_ONE_BY_ONE = """        for at in range(count):
            self._guests.words[_INDEX] = (old + at + 1) & 0xFFFF
"""
_BYTEWISE = """        torn = self._guests.words[_INDEX] & 0xFF00 | self._seen & 0xFF
        self._guests.words[_INDEX] = torn
        self._guests.words[_INDEX] = self._seen
"""
_MARK_AVAILABLE = """        for at in range(old, old + count):
            head = self._available[2 + at % self._size]
            self._written.mark(USED_ELEMENT.pack(head, 65536))
"""
_EARLY_LOOKS = """        event, flags = self._available[_EVENT], self._available[_FLAGS]
"""
_BY_EARLY_LOOKS = """calls=new != old and (
                wants_event(event, new, old) if self._event_idx else not flags & 1
            )"""

MUTATIONS = (
    _of_relay("1: ours is no copy of the guest's", (_COPY, "")),
    Mutation("1: the device does not stand still", ways={"begins_running": True}),
    Mutation("1: logging is acknowledged before the switch", ways={"acked_early": True}),
    _of_relay(
        "2: descriptors are read after the index was stored",
        (_MARK_DATA, ""),
        (_STORE_INDEX, _STORE_INDEX + _MARK_DATA),
    ),
    _of_relay("3: by the available ring", (_MARK_DATA, _MARK_AVAILABLE)),
    _of_relay("3: chains that IN_ORDER skips are not marked", (_MARK_DATA, _AS_THEY_STAND)),
    Mutation(
        "3: not by the length",
        (Change(written, "min(size, length)", "min(size, length, 16)"),),
    ),
    _of_relay(
        "4: the index is stored before the elements",
        (_STORE_ELEMENTS, ""),
        (_STORE_INDEX, _STORE_INDEX + _STORE_ELEMENTS),
    ),
    _of_relay("4: the index is stored byte by byte", (_STORE_INDEX, _BYTEWISE)),
    _of_relay("4: the index is stored for each element", (_STORE_INDEX, _ONE_BY_ONE)),
    _of_relay("4: arm64: no fence before the index", (_FENCED_STORE, _STORE_INDEX)),
    _of_relay(
        "5: the ring is marked before the stores",
        (_MARK_RING, "        if new == old:\n    " + _MARK_RING),
        (_GIVE_BACK, _MARK_AND_GIVE_BACK),
    ),
    _of_relay("5: the ring is not marked where it is already", (_MARK_RING, _MARK_IF_UNSET)),
    _of_relay("5: arm64: no fence before the mark", (_FENCED_MARK, _MARK_RING)),
    _of_relay("6: the device's wish is not passed on", (_PASSED_ON, "")),
    _of_relay(
        "6: a ring with nothing but a wish is not marked",
        (_MARK_RING, "        if new != old:\n    " + _MARK_RING),
    ),
    _of_relay("7: no full fence", ("        full_fence()\n", "")),
    _of_relay(
        "8: the guest's wish is looked at before the index is stored",
        (_GIVE_BACK, _EARLY_LOOKS + _GIVE_BACK),
        (_CALLS, _BY_EARLY_LOOKS),
    ),
    Mutation(
        "8: the guest is called when the device calls",
        ways={"device_calls_guest": True, "relay_calls_guest": False},
    ),
    _of_relay("9: the device is not kicked", (_KICKS, "kicks=False")),
    Mutation("10: no tick", ways={"ticks": False}),
    Mutation("11: no last turns", ways={"finishes": False}),
    Mutation("11: a turn is abandoned and redone", ways={"abandons": True}),
    Mutation("11: transmit rings are not marked", ways={"marks_transmit": False}),
    Mutation("11: others' marks are not taken over", ways={"takes_over": False}),
    Mutation("12: two threads mark", ways={"two_threads_mark": True}),
    Mutation("12: no kick after a switch", ways={"kicks_at_switch": False}),
)
"""Each must be caught."""

HARMLESS = (
    Mutation("8: the guest is called by the device too", ways={"device_calls_guest": True}),
    Mutation("12: the guest is called after a switch", ways={"calls_at_switch": True}),
)
"""What no rule forbids, or none asks for: nothing can be caught of it."""
