"""What a guest told its device: (command, ack) pairs, folded into a state. For VMMs; no I/O.

A VMM that shadows the CVQ sees each command and its ack, so it needs nothing of the device to know
what the guest set. One recorder goes with one device:

>>> from vdpad.state.recorder import Recorder
>>> recorder = Recorder({17, 18, 19})  # FEATURES_OK: CTRL_VQ, CTRL_RX, CTRL_VLAN
>>> recorder.fold(bytes([2, 0, 42, 0]), ack=0)  # VLAN_ADD 42, as the device gives it back
>>> recorder.fold(bytes([2, 0, 43, 0]), ack=1)  # VLAN_ADD 43, refused
>>> recorder.fold(bytes([0, 5, 1]), ack=0)  # RX_NOBCAST, which asks for CTRL_RX_EXTRA
>>> found = recorder.found()  # the guest is stopped, and no command is in flight
>>> found.state.model_dump_json(exclude_none=True)
'{"version":1,"features":["CTRL_VQ","CTRL_RX","CTRL_VLAN"],"vlans":[42]}'
>>> for each in found.missing:
...     print(f"{each.part}: {each.why}")
rx.nobcast: RX_NOBCAST was acknowledged, but CTRL_RX_EXTRA is not negotiated

A reset of the device is `recorder.reset(features)`. On the destination, where vdpad restored the
device without its guest, the next recorder begins with `Recorder.of(state)`.

How it works. Only `fold` and `reset` change anything. Each part of a state, by its dotted path, is
- not there: no acknowledged command touched it, so the device holds its reset value;
- a value: the last acknowledged command told it;
- Missing: an acknowledged command did something to it that no state can say. The next one that
  tells it mends that, except in tables that are told entry by entry (VLANs, single queues'
  coalescing), where the known entries stay in the state: they are Missing until the reset.
What a command overwrites beside its own part is forgotten first: any class 4 command switches RSS
and hash report off (the last one wins), and a direction's coalescing overwrites that of its queues.

A refused command changes nothing. QEMU's device switches RSS off even then, and others don't; the
guest's driver takes its old settings to hold, so they are what is kept.

The ack tells nothing of a MAC table's overflow. Here every entry is kept, and the flags stay off.

Sources: virtio 1.4, 5.1.6.5; QEMU hw/net/virtio-net.c.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from vdpad.errors import VdpadError
from vdpad.state.found import Found, Missing
from vdpad.state.model import Coalescing, NetState
from vdpad.state.observed import (
    ADDS_TO,
    NO_OFFLOADS,
    SETS,
    Observed,
    carries_no_state,
    decode,
    found_from,
    kind_of,
)
from vdpad.state.problems import Problem, summary
from vdpad.virtio.commands import (
    ACK_OK,
    CoalRxSet,
    CoalTxSet,
    CoalVqSet,
    Command,
    DecodeError,
    GuestOffloadsSet,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import GUEST_OFFLOADS, offloads_of
from vdpad.virtio.features import FeatureSet

__all__ = ["NoState", "Recorder"]

_CLASS_MQ = 4
# virtio 1.4, 5.1.2: receive queues have even indices, transmit queues odd ones.
_PARITY = {CoalRxSet: 0, CoalTxSet: 1}

_QueueValues = dict[int, dict[str, int]]
"""Coalescing by virtqueue index."""


class NoState(VdpadError, ValueError):
    """The device acknowledged settings that are no valid state."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"what the device acknowledged makes no state: {summary(problems)}")
        self.problems = problems
        """All of them; at least one."""


class Recorder:
    """One device's settings, as its guest's acknowledged commands told them.

    Its memory is bounded, whatever a guest sends and a device acknowledges. Not for use by several
    threads at once.
    """

    def __init__(self, features: Iterable[int]) -> None:
        """A recorder of a device in its reset state.

        Args:
            features: the bit numbers that guest and device negotiated.
        """
        self.reset(features)

    @classmethod
    def of(cls, state: NetState, missing: Iterable[Missing] = ()) -> "Recorder":
        """A recorder of a device that holds this state, as after a restore.

        The table's overflow flags hold until the guest sets its table anew.

        Args:
            state: of the device.
            missing: what an earlier recorder said that the state does not tell.
        """
        recorder = cls(state.features)
        recorder._begin_at(state)
        recorder._parts |= {each.part: each for each in missing}
        return recorder

    def reset(self, features: Iterable[int]) -> None:
        """The device was reset and features were negotiated anew: everything is forgotten."""
        self._features: FeatureSet = frozenset(features)
        self._parts: dict[str, Any] = {}
        self._vlans: dict[int, bool] = {}  # whether it passes, of each id that was ever told
        self._queues: tuple[_QueueValues, _QueueValues] = ({}, {})  # by parity

    def fold(self, readable: bytes, ack: int) -> None:
        """Takes in one command that the device has given back; in the order in which it does so.

        Args:
            readable: all device-readable bytes of the chain, from the class on.
            ack: the byte that the device wrote. Anything but 0 is a refusal.
        """
        if ack != ACK_OK or carries_no_state(readable):
            return
        try:
            command = decode(readable)
        except DecodeError as error:
            self._lose_unread(readable, f"an acknowledged command cannot be understood: {error}")
            return
        if lacking := self._lacking(command):
            self._lose(type(command), f"{command.NAME} was acknowledged, but {lacking}")
        else:
            self._take(command)

    def found(self) -> Found:
        """The state and what it lacks, or why there is none; to be taken as often as one likes.

        A state without all that is `missing` is a whole state for a guest that can do without it;
        whether this one can is for the caller to say.
        """
        lost = [part for part in self._parts.values() if isinstance(part, Missing)]
        return found_from(self._observed(), lost, self._features)

    def state(self) -> NetState:
        """The state alone, for who has no use for what is missing from it.

        Raises:
            NoState: there is none, as `found` says too.
        """
        found = self.found()
        if found.state is None:
            raise NoState(found.problems)
        return found.state

    # --- taking in ---

    def _take(self, command: Command) -> None:
        self._forget_overwritten(type(command))
        match command:
            case VlanAdd() | VlanDel():
                self._vlans[command.vid] = isinstance(command, VlanAdd)
            case CoalVqSet():
                values = {"max_packets": command.max_packets, "max_usecs": command.max_usecs}
                self._queues[command.queue % 2][command.queue] = values
            case _:
                for path, value_of in SETS[type(command)].items():
                    self._parts[path] = value_of(command)

    def _forget_overwritten(self, kind: type[Command]) -> None:
        if kind.CODE[0] == _CLASS_MQ:
            self._parts.pop("rss", None)
            self._parts.pop("hash_report", None)
        elif kind in _PARITY:
            self._queues[_PARITY[kind]].clear()

    def _begin_at(self, state: NetState) -> None:
        for name, value in _present(state).items():
            match name:
                case "mac" | "queue_pairs" | "guest_offloads":
                    self._parts[name] = value
                case "mac_table" | "rss" | "hash_report" | "hash_tunnel":
                    self._parts[name] = _present(value)
                case "rx":
                    self._parts |= {f"rx.{mode}": on for mode, on in _present(value).items()}
                case "vlans":
                    self._vlans = dict.fromkeys(value, True)
                case "coalescing":
                    self._begin_coalescing(value)
        if state.rss is not None:
            self._parts["queue_pairs"] = state.rss.max_tx_queues

    def _begin_coalescing(self, coalescing: Coalescing) -> None:
        for name, values in (("rx", coalescing.rx), ("tx", coalescing.tx)):
            if values is not None:
                self._parts[f"coalescing.{name}"] = _present(values)
        for index, values in (coalescing.queues or {}).items():
            self._queues[int(index) % 2][int(index)] = _present(values)

    # --- what no state can say ---

    def _lacking(self, command: Command) -> str:
        """What the features lack for a state to say so; empty for nothing."""
        lacked = command.lacks(self._features)
        if lacked is not None:
            return f"{lacked.name} is not negotiated"
        if isinstance(command, GuestOffloadsSet):
            permitted = offloads_of(self._features) | NO_OFFLOADS & self._features
            beyond = command.offloads - permitted
            if beyond:
                return f"of its offloads {GUEST_OFFLOADS.sentence(beyond)} are not negotiated"
        return ""

    def _lose_unread(self, readable: bytes, why: str) -> None:
        kind = kind_of(readable)
        if kind is not None:
            self._lose(kind, why)
        else:
            # At most one for each class, whatever comes.
            part = f"class {readable[0]}" if readable else "class"
            self._parts.setdefault(part, Missing(part, why))

    def _lose(self, kind: type[Command], why: str) -> None:
        self._forget_overwritten(kind)
        for path in SETS.get(kind) or (ADDS_TO[kind],):
            self._parts[path] = Missing(path, why)

    def _observed(self) -> Observed:
        told = {path: part for path, part in self._parts.items() if not isinstance(part, Missing)}
        if self._vlans:
            told["vlans"] = tuple(sorted(vid for vid, passes in self._vlans.items() if passes))
        if queues := self._queues[0] | self._queues[1]:
            told["coalescing.queues"] = {str(index): queues[index] for index in sorted(queues)}
        return told


def _present(part: BaseModel) -> dict[str, Any]:
    """What a part of a state says, one level deep."""
    return {name: value for name, value in part if value is not None}
