"""A device for tests that can be shown, and that is told what its guest's commands were."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.vhost_user.recording_device import FEATURES, RecordingDevice
from vdpad.backend.marking import Logged
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.report import Report
from vdpad.restore.terms import DeviceTerms
from vdpad.state.found import Found
from vdpad.state.recorder import Recorder
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry

GUEST: FeatureSet = FEATURES | {Feature.CTRL_VLAN, Feature.CTRL_MAC_ADDR}
GEOMETRY = SplitGeometry(
    size=8,
    memory=Region(0, 65536),
    descriptors=0,
    available=4096,
    used=8192,
    buffers=Region(16384, 32768),
)


@dataclass
class Counts:
    """Implements CountsOfCommands."""

    forwarded: int = 0
    acked: int = 0
    refused: int = 0


@dataclass
class Settings:
    """Implements KnownSettings."""

    counts: Counts = field(default_factory=Counts)
    recorder: Recorder | None = None
    bases: Mapping[int, int] = field(default_factory=dict)

    @property
    def are_known(self) -> bool:
        return self.recorder is not None

    def found(self) -> Found | None:
        return None if self.recorder is None else self.recorder.found()


class ShownRecordingDevice(RecordingDevice):
    """Implements ShownDevice too."""

    def __init__(self) -> None:
        super().__init__(features=GUEST)
        self.device_name = "a device of the tests"
        self.failure = ""
        self.shadows = False
        self.report: Report | None = None
        self.settings = Settings()
        self.logged: Logged | None = None
        self.largest_command = 4096

    @property
    def is_running(self) -> bool:
        return self.started is not None

    def terms(self, guest: FeatureSet) -> DeviceTerms:
        features = guest & self.features
        capabilities = Capabilities(features=features, largest_command=self.largest_command)
        return DeviceTerms(GEOMETRY, capabilities, Feature.RING_EVENT_IDX in features)

    def fold(self, command: bytes, ack: int = 0) -> None:
        """A command of the guest's, as the device has answered it."""
        counts = self.settings.counts
        counts.forwarded += 1
        counts.acked += ack == 0
        counts.refused += ack != 0
        if self.settings.recorder is None:
            self.settings.recorder = Recorder(GUEST)
        self.settings.recorder.fold(command, ack)
