"""A guest, and its VMM, that do what chance says: what is right, and what no guest would do."""

import os
from random import Random

from tests.backend.fuzz.received import Received
from tests.backend.fuzz.rings import mutate, offer
from tests.backend.vmm import USER, Vmm
from tests.support.guest import Guest, GuestQueue, SharedRegion
from tests.support.split_driver import Way
from tests.vhost_user import front_end as protocol
from tests.vhost_user.front_end import state, u64
from vdpad.backend.offer import HIDDEN
from vdpad.queues.software.packet_offer import PACKET_FEATURES
from vdpad.virtio.commands import (
    CoalRxSet,
    Command,
    GuestOffloadsSet,
    MacAddrSet,
    MacTableSet,
    MqPairsSet,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.features import Feature, FeatureSet

QUEUES = 3
"""One pair and the CVQ."""
RECEIVE, TRANSMIT, CONTROL = range(QUEUES)

LOG_SIZE = 1 << 31 >> 15
"""Bytes of a dirty log with a bit for each page below 2 GiB, where all memory is."""

_COMMANDS: tuple[Command, ...] = (
    *(RxPromisc(on=True), MacAddrSet(bytes.fromhex("525400aabbcc")), VlanAdd(5), VlanDel(5)),
    *(MqPairsSet(1), MqPairsSet(9), GuestOffloadsSet(frozenset()), CoalRxSet(1, 2)),
    MacTableSet((bytes.fromhex("020000000001"),), (bytes.fromhex("010000000001"),)),
)
_CHOSEN = (
    *(Feature.RING_EVENT_IDX, Feature.RING_INDIRECT_DESC, Feature.MRG_RXBUF),
    *(Feature.HASH_REPORT, Feature.MQ, Feature.IN_ORDER),
)
_ALWAYS: FeatureSet = PACKET_FEATURES - HIDDEN - {Feature.RSS, *_CHOSEN}


def features_of(random: Random) -> FeatureSet:
    """What a guest takes; one in ten leaves its CVQ to the VMM."""
    chosen: FeatureSet = frozenset(each for each in _CHOSEN if random.random() < 0.7)
    if random.random() < 0.1:
        chosen |= _ALWAYS & {Feature.VERSION_1, Feature.MAC, Feature.STATUS}
        return chosen - {Feature.MQ, Feature.HASH_REPORT}
    return _ALWAYS | chosen


def guest_of(random: Random, features: FeatureSet) -> Guest:
    """One whose rings are of any size, and described in any way that it may."""
    ways = [*Way] if Feature.RING_INDIRECT_DESC in features else [Way.DIRECT]
    return Guest(
        QUEUES if Feature.CTRL_VQ in features else CONTROL,
        size=random.choice((4, 16, 16, 256)),
        event_idx=Feature.RING_EVENT_IDX in features,
        in_order=Feature.IN_ORDER in features,
        way=random.choice(ways),
        regions=random.choice((1, 2)),
        base=random.choice((0, 0, 65530)),
        seed=random.getrandbits(32),
    )


class HostileGuest:
    """What it does next."""

    def __init__(self, vmm: Vmm, random: Random, log: int, *, keeps: frozenset[int]) -> None:
        """
        Args:
            vmm: its own, whose device has begun.
            random: says what comes.
            log: a dirty log of all its memory.
            keeps: the queues that it keeps as a guest should.
        """
        self.log_is_on = False
        """Whether its VMM has switched logging on, in the log."""
        self._vmm = vmm
        self._random = random
        self._log = log
        self._log_is_given = False
        self.keeps = keeps
        self._mutated: set[int] = set()
        self._header = bytes(20 if Feature.HASH_REPORT in vmm.features else 12)

    async def begin_to_log(self) -> None:
        """Its VMM begins to move it."""
        await self._set_log(LOG_SIZE)
        await self._want_log(wanted=True)

    async def step(self) -> None:
        """One thing.

        Raises:
            ConnectionError: the back end has closed the connection.
        """
        queue = self._random.choice(self._vmm.guest.queues)
        chance = self._random.random()
        if chance < 0.5 and queue.index not in self.keeps:
            self._mutate(queue)
        elif chance < 0.8 and queue.index not in self._mutated:
            self._use(queue)
        elif chance < 0.9:
            os.eventfd_write(queue.kick, self._random.choice((1, 1, 1 << 32)))
        else:
            await self._speak(queue)

    def receive_more(self) -> Received:
        """Of a receive queue that it keeps: what the device writes from now on.

        Something is sent, so that there is something to be received, if the device still does it.
        """
        receive, transmit = self._vmm.guest.queues[RECEIVE], self._vmm.guest.queues[TRANSMIT]
        receive.collect()
        self._submit_some(receive, 4)
        received = Received(receive)
        receive.publish()
        if TRANSMIT not in self._mutated:
            self._use(transmit)
        return received

    async def shrink(self) -> None:
        """Cuts the file of some of the memory, and does what needs no memory of its own any more.

        Raises:
            ConnectionError: the back end has closed the connection, or is no more.
        """
        region = self._random.choice(self._vmm.guest.regions)
        os.ftruncate(region.fd, self._random.choice((0, 1, 4096, region.size - 1)))
        for _ in range(5):
            queue = self._random.choice(self._vmm.guest.queues)
            os.eventfd_write(queue.kick, 1)
            await self._speak(queue)

    def _mutate(self, queue: GuestQueue) -> None:
        self._mutated.add(queue.index)
        for _ in range(self._random.choice((1, 1, 2, 5))):
            mutate(self._random, queue)
        if self._random.random() < 0.7:
            offer(queue)
        if self._random.random() < 0.8:
            os.eventfd_write(queue.kick, 1)

    def _use(self, queue: GuestQueue) -> None:
        queue.collect()
        self._submit_some(queue, self._random.choice((1, 2, 4)))
        queue.publish()

    def _submit_some(self, queue: GuestQueue, most: int) -> None:
        for _ in range(most):
            if queue.driver.free < 3:
                break
            self._submit(queue)

    def _submit(self, queue: GuestQueue) -> None:
        random, driver = self._random, queue.driver
        match queue.index:
            case 0:
                sizes = random.choice(([64], [2048], [12, 100], [1, 1500]))
                driver.submit([], sizes, queue.way)
            case 1:
                packet = random.randbytes(random.choice((1, 60, 1500, 3000)))
                driver.submit([self._header, packet], [], queue.way)
            case _:
                command = random.choice(_COMMANDS).encode()
                driver.submit([command], [random.choice((1, 1, 9))], queue.way)

    # --- what its VMM says ---

    async def _speak(self, queue: GuestQueue) -> None:
        says = (
            *(self._pause, self._enable, self._disable, self._replug, self._call, self._look),
            *(self._give_log, self._switch_log),
        )
        await self._random.choice(says)(queue)

    async def _pause(self, _: GuestQueue) -> None:
        bases = [await self._vmm.front_end.base(each.index) for each in self._vmm.guest.queues]
        if self._random.random() < 0.3:
            bases = [
                base if index in self.keeps else self._random.choice((0, base, base + 1)) & 0xFFFF
                for index, base in enumerate(bases)
            ]
        await set_up_rings(self._vmm, bases)
        await enable_all(self._vmm)

    async def _enable(self, queue: GuestQueue) -> None:
        await self._ask(protocol.SET_VRING_ENABLE, state(queue.index, 1))

    async def _disable(self, queue: GuestQueue) -> None:
        await self._ask(protocol.SET_VRING_ENABLE, state(queue.index, 0))

    async def _replug(self, queue: GuestQueue) -> None:
        """Memory is taken away, where the back end lets it go, and comes back."""
        region = self._random.choice(queue.regions)
        await self._ask(protocol.REM_MEM_REG, _described(region))
        await self._ask(protocol.ADD_MEM_REG, _described(region), region.fd)

    async def _call(self, queue: GuestQueue) -> None:
        if self._random.random() < 0.5:
            await self._ask(protocol.SET_VRING_CALL, u64(queue.index | 0x100))
        else:
            await self._ask(protocol.SET_VRING_CALL, u64(queue.index), queue.call)

    async def _look(self, _: GuestQueue) -> None:
        await self._vmm.front_end.ask(protocol.GET_CONFIG, protocol.config(0, bytes(24)))

    async def _give_log(self, _: GuestQueue) -> None:
        """Mostly one of all memory; one that is too short ends the connection while it is on."""
        await self._set_log(self._random.choice((LOG_SIZE, LOG_SIZE, LOG_SIZE >> 4)))

    async def _set_log(self, size: int) -> None:
        area = protocol.log_area(size)
        refused = await self._vmm.front_end.number(protocol.SET_LOG_BASE, area, [self._log])
        self._log_is_given |= not refused

    async def _switch_log(self, _: GuestQueue) -> None:
        await self._want_log(wanted=self._random.random() < 0.7)

    async def _want_log(self, *, wanted: bool) -> None:
        features = features_asked(self._vmm) | (protocol.LOG_ALL if wanted else 0)
        if await self._ask(protocol.SET_FEATURES, u64(features)) == 0:
            self.log_is_on = wanted and self._log_is_given

    async def _ask(self, request: int, payload: bytes, *fds: int) -> int:
        # It may well be refused.
        return await self._vmm.front_end.acked(request, payload, fds)


def features_asked(vmm: Vmm) -> int:
    """The mask of what its front end takes, but for LOG_ALL."""
    return sum(1 << bit for bit in vmm.features) | protocol.NOT_A_FLAG_OF_OURS


async def set_up(vmm: Vmm) -> None:
    """All up to the rings of a guest that begins."""
    front_end = vmm.front_end
    await front_end.send(
        protocol.SET_PROTOCOL_FEATURES, u64(protocol.ALL_SERVED & ~protocol.DEVICE_STATE)
    )
    await front_end.send(protocol.SET_OWNER)
    # Nothing is left of the guest before.
    await front_end.send(protocol.RESET_DEVICE)
    await front_end.send(protocol.SET_FEATURES, u64(features_asked(vmm)))
    for region in vmm.guest.regions:
        await front_end.send(protocol.ADD_MEM_REG, _described(region), [region.fd])


async def set_up_rings(vmm: Vmm, bases: list[int]) -> None:
    """All rings, of which nothing is asked."""
    for queue, base in zip(vmm.guest.queues, bases, strict=True):
        driver, index = queue.driver, queue.index
        parts = (driver.descriptors, driver.used, driver.available)
        addresses = protocol.addresses(index, *(USER + part for part in parts))
        send = vmm.front_end.send
        await send(protocol.SET_VRING_NUM, state(index, driver.size))
        await send(protocol.SET_VRING_BASE, state(index, base))
        await send(protocol.SET_VRING_ADDR, addresses)
        await send(protocol.SET_VRING_KICK, u64(index), [queue.kick])
        await send(protocol.SET_VRING_CALL, u64(index), [queue.call])


async def enable_all(vmm: Vmm) -> int:
    """Every ring, and a driver that is there: 0 where it has begun."""
    for queue in vmm.guest.queues:
        await vmm.front_end.send(protocol.SET_VRING_ENABLE, state(queue.index, 1))
    return await vmm.front_end.acked(protocol.SET_STATUS, u64(0xF))


def _described(region: SharedRegion) -> bytes:
    return protocol.single(region.start, region.size, USER + region.start, 0)
