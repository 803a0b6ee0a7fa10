"""What a guest has set, as its commands and the device's acks tell it; kept while the device stops.

It begins with each fresh start of the guest's driver, or with a state that came from elsewhere.
A guest that goes on goes on with it. One that begins anew has set nothing, whatever came for it.
One that goes on and of which nothing came is served, but what it had set is missing from then on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vdpad.backend.faults import NotRestored
from vdpad.state.found import Found, Missing
from vdpad.state.model import NetState
from vdpad.state.problems import summary
from vdpad.state.recorder import Recorder
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.features import FEATURES, TRANSPORT, Feature, FeatureSet

_UNTOLD = Missing(
    "settings",
    "the guest went on here without a state that had come for it; what it had set before, the "
    "device does not have",
)


@dataclass(frozen=True, slots=True)
class CommandCounts:
    """How many commands of the guest's went to the device, since this process began."""

    forwarded: int = 0
    """That the device has answered."""
    acked: int = 0
    """Of them with OK."""
    refused: int = 0
    """Of them otherwise."""


class GuestSettings:
    """The settings of one guest after the other."""

    def __init__(self) -> None:
        """Of a guest that nothing is known of."""
        self.counts = CommandCounts()
        self.queue_pairs = 1
        """That a guest uses whose VMM keeps its commands; each start tells them anew."""
        self.bases: Mapping[int, int] = {}
        """Where each of the guest's queues began, or where it was left, by index."""
        self.unplaced = ""
        """Why nobody knows where some of them were left, until the next start."""
        self.has_moved = False
        """Whether the guest came from elsewhere, and has not told the network yet."""
        self._lost = ""
        """Why the state that came for the guest was not taken."""
        self._recorder: Recorder | None = None
        self._features: FeatureSet = frozenset()

    def begin(self, features: Iterable[int]) -> None:
        """The guest's driver begins anew, with these features."""
        self.forget()
        self._features = frozenset(features)
        self._recorder = Recorder(self._features)

    def _begin_untold(self, features: FeatureSet) -> None:
        self.begin(features)
        if Feature.CTRL_VQ in features:
            state = NetState(version=1, features=self._features)
            self._recorder = Recorder.of(state, (_UNTOLD,))

    @property
    def are_known(self) -> bool:
        """Whether anything is known of a guest."""
        return self._recorder is not None

    @property
    def are_whole(self) -> bool:
        """Whether all that the guest has set is known, and can be given to a device again."""
        found = self.found()
        return found is not None and found.state is not None and not found.missing

    def recall(self, recorder: Recorder, features: FeatureSet, bases: Mapping[int, int]) -> None:
        """The guest is one that an earlier process had, or another back end.

        Args:
            recorder: with all that it had set; this object's from now on.
            features: those that it set it with.
            bases: where its queues stood.
        """
        self.forget()
        self.bases = bases
        self._features = features
        self._recorder = recorder

    def go_on(self, features: FeatureSet) -> None:
        """The guest's driver goes on, as it was, with these features.

        Raises:
            NotRestored: with other ones than it has set things with; or nobody knows what it has
                set, as the state that came for it was not taken.
        """
        if self._lost:
            raise NotRestored(
                "expected a guest whose settings are known, the state that came for it was not "
                f"taken ({self._lost}); load one that the device takes, or reset the guest's device"
            )
        if self._recorder is None:
            self._begin_untold(features)
        other = {*self._features} ^ {*features}
        if other - set(TRANSPORT):
            raise NotRestored(
                "expected a guest that goes on with the features it had, it differs in "
                f"{FEATURES.sentence(other)}; reset the guest's device"
            )

    def forget(self) -> None:
        """Nothing is known any more."""
        self._recorder = None
        self._features = frozenset()
        self.bases = {}
        self.unplaced = ""
        self.has_moved = False
        self._lost = ""

    def lose(self, why: str) -> None:
        """Nothing is known of the guest that comes next, if it goes on: its state was not taken."""
        self.forget()
        self._lost = why

    def acknowledged(self, command: bytes, answer: bytes) -> None:
        """The device has answered a command of the guest's."""
        acked = answer[0] == ACK_OK
        counts = self.counts
        self.counts = replace(
            counts,
            forwarded=counts.forwarded + 1,
            acked=counts.acked + acked,
            refused=counts.refused + (not acked),
        )
        if self._recorder is not None:
            self._recorder.fold(command, answer[0])

    def found(self) -> Found | None:
        """The state and what is missing from it; None where nothing is known."""
        return None if self._recorder is None else self._recorder.found()

    @property
    def mac(self) -> bytes | None:
        """The address that the guest has given its device, if it has."""
        found = self.found()
        return None if found is None or found.state is None else found.state.mac

    def to_restore(self) -> NetState | None:
        """What a device must be given for the guest to go on, if anything is known.

        Raises:
            NotRestored: what a device has acked makes no state.
        """
        found = self.found()
        if found is None:
            return None
        if found.state is None:
            raise NotRestored(
                "expected settings that can be given to a device again, got what one has acked "
                f"and no state can say: {summary(found.problems)}"
            )
        return found.state
