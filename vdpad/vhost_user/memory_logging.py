"""When a session's memory is logged: two things come together, in either order.

How it works. SET_LOG_BASE brings a log, and the feature bit LOG_ALL says that it is wanted. The
device marks while both are there, running or not. A front end that begins a migration sends the log
first, on a device that runs, and another one when the guest's memory grows, or each time that it
reads; one whose guest starts its driver during a migration takes LOG_ALL first. A log is unmapped
when the device marks in it no more, and all that it had to mark there is marked.

LOG_ALL is the protocol's and not the guest's. QEMU's vhost-user-test-device hands every bit that is
offered on to its guest, so there it must not be offered. Who shows its guest a whole device takes
the protocol feature CONFIG, as it has the config space from us; QEMU's -netdev vhost-user and
cloud-hypervisor's net know their guest's features themselves, and do not. So LOG_ALL is offered
until CONFIG is taken: cloud-hypervisor asks for features only before, and the test device anew
afterwards. It may be taken by who has taken LOG_SHMFD, whatever was offered.

A used ring is marked where it is, whatever address SET_VRING_ADDR gives for that, and whether it
has the flag or not. SET_LOG_FD, an eventfd for each mark, is not served: no front end sends it.

QEMU takes a log for taken whatever the answer says. One that is refused before LOG_ALL is told by
refusing that; one that is refused afterwards ends the connection (NotTold).

Source: QEMU's docs/interop/vhost-user.rst, "Migration"; QEMU's vhost_dev_set_log and
vhost_dev_log_resize; cloud-hypervisor's vu_common_ctrl.rs.
"""

from collections.abc import Set

from vdpad.errors import VdpadError
from vdpad.service.threads import give_back
from vdpad.vhost_user.channel import Attached
from vdpad.vhost_user.device import VhostUserDevice
from vdpad.vhost_user.dirty_log import DirtyLog, map_log
from vdpad.vhost_user.faults import NotServed, NotTold
from vdpad.vhost_user.memory_table import MemoryTable
from vdpad.vhost_user.messages import ProtocolFeature
from vdpad.vhost_user.payloads import LOG_AREA_SIZE, pull_log_area
from vdpad.vhost_user.to_its_end import to_its_end


def is_offered(protocol_features: Set[int]) -> bool:
    """Whether GET_FEATURES has LOG_ALL, for who has taken these so far."""
    return ProtocolFeature.CONFIG not in protocol_features


class MemoryLogging:
    """That of one session. One call at a time."""

    def __init__(self, device: VhostUserDevice, table: MemoryTable) -> None:
        """Nothing is logged.

        Args:
            device: that marks.
            table: all of the guest's memory, for others to change.
        """
        self._device = device
        self._table = table
        self._log: DirtyLog | None = None
        self._is_wanted = False

    def check_wanted(self, protocol_features: Set[int], *, running: bool) -> None:
        """Refuses LOG_ALL that could not be taken now.

        Raises:
            NotServed: without LOG_SHMFD, or on a device that runs and has nowhere to mark.
        """
        if ProtocolFeature.LOG_SHMFD not in protocol_features:
            raise NotServed("expected LOG_ALL with the protocol feature LOG_SHMFD, got it without")
        if running and self._log is None:
            raise NotServed(
                "expected SET_LOG_BASE before LOG_ALL on a device that runs, none was taken"
            )

    async def want(self, wanted: bool) -> None:
        """LOG_ALL was taken, or was not.

        Raises:
            VdpadError: the device does not log, or cannot end it; all is as before.
        """
        if wanted is not self._is_wanted:
            await to_its_end(self._want(wanted))

    async def set_base(self, payload: bytes, attached: Attached) -> None:
        """SET_LOG_BASE.

        Raises:
            NotServed: it cannot be a log, or does not cover the memory; all is as before.
            NotTold: the same while LOG_ALL is taken, or the device does not mark there.
        """
        try:
            await to_its_end(self._replace(_mapped(payload, attached)))
        except (VdpadError, OSError) as error:
            if self._is_wanted:
                raise NotTold(str(error)) from error
            raise

    def check_covered(self, end: int) -> None:
        """Refuses memory that the log of a device that marks has no bits for.

        Args:
            end: of the memory, by guest address.

        Raises:
            NotServed: it is so.
        """
        if self._log is not None and self._is_wanted:
            _check_covered(self._log, end)

    async def end(self) -> None:
        """Logs no more, and lets go of the log, whatever the device says to that."""
        try:
            await self.want(False)
        finally:
            self._is_wanted = False
            log, self._log = self._log, None
            if log is not None:
                await to_its_end(give_back(log.close, "unmap"))

    async def _want(self, wanted: bool) -> None:
        if self._log is not None:
            await self._device.log(self._log if wanted else None)
        self._is_wanted = wanted

    async def _replace(self, log: DirtyLog) -> None:
        try:
            _check_covered(log, self._table.end)
            if self._is_wanted:
                await self._device.log(log)
        except BaseException:
            await give_back(log.close, "unmap")
            raise
        before, self._log = self._log, log
        if before is not None:
            await give_back(before.close, "unmap")


def _mapped(payload: bytes, attached: Attached) -> DirtyLog:
    if len(payload) != LOG_AREA_SIZE or attached.first is None:
        raise NotServed("expected a log's file with its size and offset, got a number or no file")
    return map_log(pull_log_area(payload), attached.first)


def _check_covered(log: DirtyLog, end: int) -> None:
    if end > log.end:
        raise NotServed(
            f"expected a log of all memory, which ends at {end:#x}, got one that ends at "
            f"{log.end:#x}; set a larger one first"
        )
