"""The address that a device had before any guest, and has again once its back end gives it back.

Some devices keep through a reset what a guest has set (mlx5_vdpa, vdpa_sim_net). Whoever has such a
one next would take a guest's address for the device's own. So a guest that begins is given that
(running.py), and so is the device when it is given back, here. What a process leaves that is killed
the next one finds in the state directory (kept/file.py).
"""

from functools import partial

from vdpad.backend.driving import look
from vdpad.backend.events import AddressNotPutBack
from vdpad.backend.moving.rehearsal import rehearse
from vdpad.backend.owned_device import OwnedDevice
from vdpad.errors import VdpadError
from vdpad.service.events.announcing import Announce
from vdpad.state.model import NetState
from vdpad.virtio.commands import format_mac
from vdpad.virtio.features import Feature, FeatureSet

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
    own = NetState(version=1, features=_NEEDED, mac=owned.address)
    try:
        if await _shown(owned) != owned.address:
            await rehearse(own, owned, name=name, behind=behind)
    except VdpadError as error:
        announce(AddressNotPutBack(name, format_mac(owned.address), str(error)))


async def _shown(owned: OwnedDevice) -> bytes:
    allowed = owned.offer.may_share_address_space
    step = partial(look, owned.device, shared_address_space=allowed)
    return (await owned.steps.take(step)).net.mac
