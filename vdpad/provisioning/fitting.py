"""Whether a wanted device can be made on a management device, and whether it came out as wanted.

Both tell everything at once, by paths into what `vdpactl devices --json` prints of a device; what
is about the management device itself has the path "mgmtdev".

Source: Linux drivers/vdpa/vdpa.c (vdpa_nl_cmd_dev_add_set_doit) for what every driver's devices
must be, and vdpa_dev_net_config_fill for which features bring which fields.
"""

from collections.abc import Iterator, Sequence

from vdpad.host.vdpa import NETWORK, ManagementDevice, VdpaConfig, VdpaDevice, WantedDevice
from vdpad.provisioning.wanted import NEEDED
from vdpad.state.problems import Problem
from vdpad.virtio.features import FEATURES, Feature, FeatureSet
from vdpad.virtio.mac import format_mac

# A field of config space, and the features of which one brings it.
_BROUGHT_BY = {
    "mac": (Feature.MAC,),
    "max_virtqueue_pairs": (Feature.MQ, Feature.RSS),
    "mtu": (Feature.MTU,),
}


def misfits(
    wanted: WantedDevice, maker: ManagementDevice, devices: Sequence[VdpaDevice]
) -> Iterator[Problem]:
    """Why a management device cannot make what is wanted; nothing where it can.

    Args:
        wanted: what is to be made.
        maker: what it is to be made on.
        devices: those that this host has.
    """
    yield from _maker_problems(maker, devices)
    yield from _feature_problems(wanted.features, maker.features)
    yield from _field_problems(wanted)
    yield from _queue_problems(wanted, maker.max_vqs)


def differences(wanted: WantedDevice, made: VdpaConfig) -> Iterator[Problem]:
    """What a device is that it was not to be, or the other way round."""
    if made.features is None:
        yield _not_told("features", "what a device offers", "6.2")
    elif made.features != wanted.features:
        lacking = FEATURES.sentence(wanted.features - made.features)
        besides = FEATURES.sentence(made.features - wanted.features)
        message = f"lacking of what is wanted: {lacking}; there besides: {besides}"
        yield Problem("features", "differs", message)
    for field in _BROUGHT_BY:
        expected, came = getattr(wanted, field), getattr(made, field)
        if expected != came:
            message = f"{_shown(expected)} is wanted, the device has {_shown(came)}"
            yield Problem(f"config.{field}", "differs", message)


def _maker_problems(maker: ManagementDevice, devices: Sequence[VdpaDevice]) -> Iterator[Problem]:
    if NETWORK not in maker.supported_classes:
        yield Problem("mgmtdev", "no-network", f"{maker.handle} makes no network devices")
    # Simulators, which are on no bus, make as many as are asked for. The hardware on a bus is one
    # device; vp_vdpa would make two of it, and remove the later one for either.
    there = [each.name for each in devices if each.mgmtdev == maker.handle]
    if maker.bus is not None and there:
        message = f"{maker.handle} makes one device, and {there[0]} is there already"
        yield Problem("mgmtdev", "in-use", message)


def _feature_problems(wanted: FeatureSet, offered: FeatureSet | None) -> Iterator[Problem]:
    if offered is None:
        yield _not_told("mgmtdev", "what a management device supports", "5.17")
    elif not wanted <= offered:
        message = f"the management device has not {FEATURES.sentence(wanted - offered)}"
        yield Problem("features", "missing-feature", message)
    if not wanted >= NEEDED:
        message = f"no vDPA device can be without {FEATURES.sentence(NEEDED - wanted)}"
        yield Problem("features", "missing-feature", message)


def _field_problems(wanted: WantedDevice) -> Iterator[Problem]:
    for field, features in _BROUGHT_BY.items():
        value, path = getattr(wanted, field), f"config.{field}"
        either = " or ".join(each.name for each in features)
        if wanted.features.isdisjoint(features):
            if value is not None:
                yield Problem(path, "missing-feature", f"needs {either}, which is not wanted")
        elif value is None:
            message = (
                f"{either} brings it, and its value is not known; --like takes beside a state what "
                "`vdpactl devices --json` prints on the source"
            )
            yield Problem(path, "missing", message)


def _queue_problems(wanted: WantedDevice, most: int | None) -> Iterator[Problem]:
    pairs = wanted.max_virtqueue_pairs or 1
    queues = 2 * pairs + (Feature.CTRL_VQ in wanted.features)
    path = "config.max_virtqueue_pairs"
    if most is not None and queues > most:
        message = f"{pairs} pairs are {queues} virtqueues; the management device has {most}"
        yield Problem(path, "out-of-range", message)
    if pairs > 1 and Feature.MQ not in wanted.features:
        yield Problem(path, "missing-feature", "Linux makes more than one pair only with MQ")


def _not_told(path: str, what: str, since: str) -> Problem:
    return Problem(path, "not-told", f"this kernel does not tell {what}; Linux {since} does")


def _shown(value: bytes | int | None) -> str:
    if value is None:
        return "none"
    return format_mac(value) if isinstance(value, bytes) else str(value)
