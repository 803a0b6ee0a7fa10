"""From what a request names to the target that it means."""

from collections.abc import Iterable

from vdpad.api.params import Params
from vdpad.api.targets import SoftwareParams, VhostVdpaParams
from vdpad.daemon.devices.keeper import DeviceKeeper
from vdpad.daemon.devices.store import DescriptorStore
from vdpad.daemon.settings import Software
from vdpad.daemon.targets.interface import Target
from vdpad.daemon.targets.lent import LentTarget
from vdpad.daemon.targets.nodes import NodePaths
from vdpad.daemon.targets.software import SoftwareTarget
from vdpad.daemon.targets.target_params import LentParams
from vdpad.daemon.targets.vhost_vdpa import VhostVdpaTarget
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.refusal import Kind, Refusal


class Targets:
    """All that a request may name."""

    def __init__(
        self,
        software: Iterable[Software],
        announce: Announce = log_event,
        store: DescriptorStore | None = None,
    ) -> None:
        self._software = {each.name: SoftwareTarget(each, announce) for each in software}
        self.keeper = DeviceKeeper(announce, store)
        self._paths = NodePaths()

    def start(self) -> None:
        """Starts the software devices in the running loop."""
        for target in self._software.values():
            target.start()

    async def stop(self) -> None:
        """Ends the software devices, and gives the kept ones back."""
        await self.keeper.stop()
        for target in self._software.values():
            await target.stop()

    def resolve(self, params: Params, user: int) -> Target:
        """The target that a request means.

        Args:
            params: as it says.
            user: whose request it is: a uid, or ANOTHER_HOST.

        Raises:
            Refusal: no-such-device.
            BadLend: the geometry makes no sense.
        """
        match params:
            case LentParams():
                return LentTarget.of(params)
            case VhostVdpaParams():
                return VhostVdpaTarget(params, self.keeper, self._paths, user)
            case SoftwareParams() if params.name in self._software:
                return self._software[params.name]
        there = ", ".join(self._software) or "none"
        raise Refusal(Kind.NO_SUCH_DEVICE, f"no software device has this name; there are: {there}")
