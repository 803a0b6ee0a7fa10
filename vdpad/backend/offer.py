"""What a device is to a guest: which features it is offered, and what goes to the device for them.

Rings are the guest's own, so a feature of the ring is offered where the device can take such a ring
as the guest has it: a split one. IN_ORDER changes what a device writes to a split ring, which the
relay knows (relay/in_order.py). ACCESS_PLATFORM says that addresses are translated, by the mapping
of the guest's memory, of which the guest knows nothing: the device is told, the guest is not.
"""

from dataclasses import dataclass, replace

from vdpad.backend.faults import CannotStart
from vdpad.backend.following.filter import FOLLOWED
from vdpad.queues.vhost_vdpa.memory import control_geometry
from vdpad.restore.terms import DeviceTerms
from vdpad.virtio.config import NetConfig, cvq_index, pull_config
from vdpad.virtio.features import FEATURES, Feature, FeatureSet
from vdpad.virtio.mac import format_mac

HIDDEN: FeatureSet = frozenset(
    {
        Feature.ACCESS_PLATFORM,
        Feature.ADMIN_VQ,
        Feature.NOTIF_CONFIG_DATA,
        Feature.NOTIFICATION_DATA,
        Feature.ORDER_PLATFORM,
        Feature.RING_PACKED,
        Feature.RING_RESET,
        Feature.SR_IOV,
    }
)
"""What no guest is offered, whatever the device has."""

# What a device is told for a guest that has no control queue: that its filter can be opened, and
# its address be put back, as for any guest. CTRL_VLAN is not among them: without it no VLAN is
# filtered. Where the filter is followed, all of it can be told.
_FOR_OURSELVES: FeatureSet = frozenset({Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_MAC_ADDR})


@dataclass(frozen=True, slots=True)
class Offer:
    """A device as it is offered."""

    device: FeatureSet
    """What the device itself offers."""
    config: bytes
    """Its config space in its reset state, with all features that a guest may take."""
    may_share_address_space: bool
    """The guest may reach the CVQ's ring."""
    largest_control_ring: int
    """How many entries the CVQ's ring may have."""
    follows_filter: bool = False
    """The VMM's monitor tells the filter of a guest that has no control queue."""
    card_mac: bytes | None = None
    """What the card of such a guest has; None for the device's own."""

    @property
    def features(self) -> FeatureSet:
        """What a guest may take."""
        return self.device - HIDDEN

    @property
    def net(self) -> NetConfig:
        """The config space, read."""
        return pull_config(self.config)

    def with_address(self, mac: bytes) -> "Offer":
        """The same of a device whose own address is this one, whatever it shows."""
        return replace(self, config=mac + self.config[len(mac) :])

    def with_card(self, mac: bytes, name: str) -> "Offer":
        """The same for guests without a control queue whose card has this address.

        Args:
            mac: the card's.
            name: of the device, for people.

        Raises:
            CannotStart: the device cannot be given it.
        """
        if Feature.CTRL_MAC_ADDR not in self.device and mac != self.net.mac:
            raise CannotStart(
                f"{name}: expected a device that takes an address (CTRL_MAC_ADDR), or has "
                f"{format_mac(mac)} (--mac), got one that has {format_mac(self.net.mac)}; give it "
                "that when it is made (`vdpa dev add … mac`)"
            )
        return replace(self, card_mac=mac)

    def mac_of_guest(self, *, has_control_queue: bool) -> bytes:
        """What the device is given for a guest that has set none."""
        if self.card_mac is None or has_control_queue:
            return self.net.mac
        return self.card_mac

    @property
    def queues(self) -> int:
        """How many virtqueues there are, the CVQ among them."""
        return self.last_queue(self.features) + 1

    def last_queue(self, features: FeatureSet) -> int:
        """The highest queue of a guest with these features: its CVQ, if it has one."""
        control = cvq_index(features, self.net.max_virtqueue_pairs)
        return control if Feature.CTRL_VQ in features else control - 1

    def for_device(self, guest: FeatureSet) -> FeatureSet:
        """What the device is driven with, for a guest that took these.

        Raises:
            CannotStart: the guest took what it cannot have, or is too old.
        """
        if guest - self.features or Feature.VERSION_1 not in guest:
            raise CannotStart(
                "expected VERSION_1 and features that are offered, got beside them "
                f"{FEATURES.sentence(guest - self.features)}"
            )
        ours = FOLLOWED if self.follows_filter else _FOR_OURSELVES
        if Feature.CTRL_VQ in guest:
            ours = frozenset({Feature.CTRL_MAC_ADDR})
        return guest | self.device & ours | {Feature.ACCESS_PLATFORM}

    def terms(self, guest: FeatureSet) -> DeviceTerms:
        """What a plan for a guest with these features goes by."""
        geometry = control_geometry(self.largest_control_ring)
        return DeviceTerms.of(guest & self.features, self.net, geometry)


def to_look_at(device: FeatureSet) -> FeatureSet:
    """What a device is negotiated with to see its config space."""
    return device - HIDDEN | {Feature.ACCESS_PLATFORM}
