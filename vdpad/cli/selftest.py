"""What a device's CVQ does with each command that its features allow; for a device nobody uses.

Each command is sent alone and waited for; then, after a reset, all of them as one batch, which is
how a restore sends them. At last, after another reset, a command of a class that does not exist:
alone, and behind one that the device takes. A device must refuse it both times (virtio 1.4,
5.1.6.5). One that acknowledges it in the batch carries an answer over from one command to the next,
so none of its acknowledgements in a batch means anything; Linux's vdpa_sim_net does so.
"""

import asyncio
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vdpad.cli.failures import CannotTest
from vdpad.cli.progress import shown
from vdpad.daemon.faults import refusal_of
from vdpad.errors import VdpadError
from vdpad.host import sysfs
from vdpad.queues.vhost_vdpa.device import VhostVdpaDevice
from vdpad.queues.vhost_vdpa.errors import (
    DeviceRefused,
    NoControlQueue,
    NodeBusy,
    NoNetworkDevice,
    NoSuchNode,
    NotPermitted,
)
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.restore.report import length_notes
from vdpad.service.envelope import error_of
from vdpad.service.refusal import Kind, Refusal
from vdpad.virtio.commands import (
    ACK_ERR,
    ACK_OK,
    CoalRxSet,
    CoalTxSet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxAllMulti,
    RxAllUni,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import MIN_RSS_KEY_SIZE, NetConfig, offloads_of
from vdpad.virtio.features import FEATURES, FeatureSet
from vdpad.virtio.raw_command import AnyCommand, RawCommand
from vdpad.wire.unreachable import who_may_use

# How long a device may take for what is sent at once, in seconds.
_MAX_SECONDS = 5.0
_POLL_NS = 1_000_000

_EVERY_FEATURE: FeatureSet = frozenset(range(64))
_MAC = bytes.fromhex("020000000001")
_MULTICAST = bytes.fromhex("01005e000001")
# A command that no device knows.
_NO_SUCH_CLASS = RawCommand((255, 255), b"")


def candidates(features: FeatureSet, config: NetConfig) -> list[Command]:
    """A command of each kind that carries state and that the features allow, in a plan's order."""
    return [each for each in _all_kinds(features, config) if each.FEATURE in features]


def _all_kinds(features: FeatureSet, config: NetConfig) -> Iterator[Command]:
    pairs = max(1, config.max_virtqueue_pairs)
    key = bytes(range(min(MIN_RSS_KEY_SIZE, config.rss_max_key_size)))
    mac = config.mac if any(config.mac) else _MAC
    yield MacAddrSet(mac)
    yield MqPairsSet(pairs)
    yield MqRssConfig(config.supported_hash_types, 0, (0,), pairs, key)
    yield MqHashConfig(config.supported_hash_types, key)
    yield HashTunnelSet(config.supported_tunnel_types)
    yield GuestOffloadsSet(offloads_of(features))
    yield CoalTxSet(64, 100)
    yield CoalRxSet(32, 50)
    yield CoalVqSet(0, 16, 25)
    yield VlanAdd(1)
    yield VlanAdd(4094)
    yield VlanDel(1)
    yield MacTableSet((_MAC,), (_MULTICAST,))
    for mode in (RxAllMulti, RxAllUni, RxNoMulti, RxNoUni, RxNoBcast, RxPromisc):
        yield mode(on=True)
        yield mode(on=False)


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What came of one command; the times are in microseconds."""

    command: Command
    alone: int | None
    """Its ack; None where none came."""
    alone_us: float
    in_batch: int | None


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a device did, command by command and in a batch, and what is to be said of it."""

    node: Path
    features: FeatureSet
    ring_size: int
    answers: tuple[CommandOutcome, ...]
    alone_us: float
    """The sum."""
    batch_us: float
    batch_doorbells: int
    findings: tuple[str, ...]
    """What a device should not do, as sentences."""
    notes: tuple[str, ...]
    """What a restore takes no offence at."""

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "node": str(self.node),
            "features": FEATURES.names(sorted(self.features)),
            "ring_size": self.ring_size,
            "commands": [
                {
                    "command": each.command.NAME,
                    "arguments": each.command.arguments(),
                    "alone": {"ack": each.alone, "us": each.alone_us},
                    "batch": {"ack": each.in_batch},
                }
                for each in self.answers
            ],
            "alone": {"us": self.alone_us, "doorbells": len(self.answers)},
            "batch": {"us": self.batch_us, "doorbells": self.batch_doorbells},
            "findings": list(self.findings),
            "notes": list(self.notes),
        }


def run(arguments: Namespace) -> dict[str, Any]:
    """The command: the test's result as plain values.

    Raises:
        CannotTest: the device cannot be had.
    """
    return selftest_of(arguments.device).to_json()


class SelfTestStage:
    """How far a test is, for whoever waits for it."""

    now = "coming up"


def selftest_of(device: str) -> SelfTest:
    """Tests a device, which is reset before and after.

    Args:
        device: its vdpa name, or its node's path.

    Raises:
        CannotTest: there is none, somebody has it, this user may not, or it does not come up.
    """
    stage = SelfTestStage()
    try:
        node = _node(device)
        with shown(lambda: f"{device}: {stage.now}"):
            return asyncio.run(_run(node, stage))
    except VdpadError as error:
        raise CannotTest(**error_of(_refusal(device, error))) from error


def _node(device: str) -> Path:
    name = sysfs.name_of_node(Path(device)) if "/" in device else device
    node = None if name is None else sysfs.node_of(name)
    if node is None:
        raise NoSuchNode("expected a device with the driver vhost_vdpa, or the path of its node")
    return node


def _refusal(device: str, error: VdpadError) -> Refusal:
    """Why a device cannot be tested, of the kind that the daemon tells where it cannot have one."""
    match error:
        case NodeBusy():
            holders = sysfs.holders_of(_node(device))
            return Refusal(
                Kind.BUSY,
                f"{device} is in use by {sysfs.named_holders(holders)}",
                holders=[asdict(each) for each in holders],
            )
        case NotPermitted():
            return Refusal(Kind.NOT_ALLOWED, f"{device}: {error}; {who_may_use(_node(device))}")
        case NoControlQueue() | NoNetworkDevice():
            return Refusal(Kind.NO_SUCH_DEVICE, f"{device}: {error}")
    found = refusal_of(error)
    kind, data = (Kind.INTERNAL, {}) if found is None else (found.kind, found.data)
    return Refusal(kind, f"{device}: {error}", **data)


async def _run(node: Path, stage: SelfTestStage) -> SelfTest:
    with _up(node) as device:
        features, ring_size = device.features, device.geometry.size
        commands = candidates(features, device.config)
        alone = []
        for at, each in enumerate(commands, 1):
            stage.now = f"command {at} of {len(commands)}, {each.NAME}, alone"
            alone.append(await _send(device, each))
    stage.now = f"{len(commands)} commands as one batch"
    with _up(node) as device:
        batch = await _send(device, *commands)
    stage.now = "a command that does not exist"
    with _up(node) as device:
        unknown = await _send(device, _NO_SUCH_CLASS)
        behind = await _send(device, *commands[:1], _NO_SUCH_CLASS)

    answers = tuple(
        CommandOutcome(command, _acks(sent, 1)[0], sent.elapsed_ns / 1000, ack)
        for command, sent, ack in zip(commands, alone, _acks(batch, len(commands)), strict=True)
    )
    findings = (
        *_findings(answers),
        *_broken((*alone, batch, unknown, behind)),
        *_carried_over(
            commands[:1], _acks(unknown, 1)[-1], _acks(behind, 1 + len(commands[:1]))[-1]
        ),
    )
    return SelfTest(
        node=node,
        features=features,
        ring_size=ring_size,
        answers=answers,
        alone_us=sum(each.alone_us for each in answers),
        batch_us=batch.elapsed_ns / 1000,
        batch_doorbells=batch.doorbells,
        findings=findings,
        notes=_length_notes((*alone, batch), 2 * len(commands)),
    )


@contextmanager
def _up(node: Path) -> Iterator[VhostVdpaDevice]:
    """The device, reset, with all that it offers."""
    device = VhostVdpaDevice(node, _EVERY_FEATURE)
    try:
        yield device
    finally:
        device.close()


async def _send(device: VhostVdpaDevice, *commands: AnyCommand) -> Replayed:
    """Sends commands as one batch; where an earlier one never came back, none is sent."""
    try:
        queue = device.queue()
    except DeviceRefused:
        unanswered = tuple(range(len(commands)))
        return Replayed(Outcome.INCOMPLETE, (), unanswered, 0, 0, None)
    program = encode(commands, device.geometry, event_idx=device.event_idx)
    deadline = asyncio.get_running_loop().time() + _MAX_SECONDS
    try:
        return await replay(program, queue, deadline=deadline, poll_ns=_POLL_NS)
    finally:
        queue.close()


def _acks(sent: Replayed, count: int) -> list[int | None]:
    return [
        None if at in sent.unanswered else ACK_ERR if at in sent.rejected else ACK_OK
        for at in range(count)
    ]


def _findings(answers: Sequence[CommandOutcome]) -> Iterator[str]:
    for each in answers:
        name = f"{each.command.NAME} {each.command.arguments()}".strip()
        if each.alone is None or each.in_batch is None:
            yield f"{name}: not answered within {_MAX_SECONDS:.0f} s"
        elif each.alone != each.in_batch:
            yield f"{name}: {_word(each.alone)} alone, {_word(each.in_batch)} in the batch"
        elif each.alone == ACK_ERR:
            yield f"{name}: refused, though the device offers {each.command.FEATURE.name}"


def _broken(sent: Sequence[Replayed]) -> Iterator[str]:
    for fault in dict.fromkeys(each.fault for each in sent if each.outcome is Outcome.BROKEN):
        yield f"the device broke the rules of the ring: {fault}"


def _length_notes(sent: Sequence[Replayed], commands: int) -> tuple[str, ...]:
    wrong: Counter[int] = Counter()
    for each in sent:
        wrong.update(dict(each.wrong_lengths))
    return length_notes(sorted(wrong.items()), commands)


def _carried_over(first: Sequence[Command], alone: int | None, behind: int | None) -> Iterator[str]:
    """What is wrong with the answers to a command that does not exist."""
    if alone != ACK_ERR:
        yield f"a command of a class that does not exist: {_word(alone)}, must be refused"
    elif first and behind != ACK_ERR:
        yield (
            f"a command of a class that does not exist: refused alone, but {_word(behind)} behind "
            f"{first[0].NAME} in one batch. The device carries an answer over from one command "
            "to the next, so what it acknowledges in a batch may not have been done (a known bug "
            "of Linux's vdpa_sim_net)"
        )


def _word(ack: int | None) -> str:
    return "not answered" if ack is None else "refused" if ack == ACK_ERR else "acknowledged"
