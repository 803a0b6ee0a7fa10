"""The address that a device had before any guest, and has again once its back end gives it back.

Why it may have another, kept/addresses.py says. A guest that begins is given its device's own
(running.py), and so is the device when it is given back, here.
"""

from functools import partial

from vdpad.backend.driving import look
from vdpad.backend.events import AddressNotPutBack
from vdpad.backend.moving.rehearsal import rehearse
from vdpad.backend.owned_device import OwnedDevice
from vdpad.errors import VdpadError
from vdpad.service.events.announcing import Announce
from vdpad.state.model import NetState
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.mac import format_mac

_NEEDED: FeatureSet = frozenset({Feature.MAC, Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR})


async def put_back(owned: OwnedDevice, name: str, behind: int, announce: Announce) -> None:
    """Gives a device that is stopped its own address, where it has another. It is reset afterwards.

    Where that fails it is told, and nothing else: whoever gives a device back has no use for it.

    Args:
        owned: the device.
        name: of the back end.
        behind: a device address behind all memory that is mapped.
        announce: told where the device keeps another.
    """
    if not owned.offer.features >= _NEEDED:
        return
    address = owned.addresses.own
    own = NetState(version=1, features=_NEEDED, mac=address)
    try:
        if await _shown(owned) != address:
            await rehearse(own, owned, name=name, behind=behind)
    except VdpadError as error:
        announce(AddressNotPutBack(name, format_mac(address), str(error)))
    else:
        owned.addresses.has_its_own()


async def _shown(owned: OwnedDevice) -> bytes:
    allowed = owned.offer.may_share_address_space
    step = partial(look, owned.device, shared_address_space=allowed)
    return (await owned.steps.take(step)).net.mac
