"""The daemon's settings: every key with its default and its bounds; configuration.py reads them."""

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.state.fields import FeatureNames, HashTypeNames, MacAddress
from vdpad.state.problems import invalid
from vdpad.virtio.config import MAX_QUEUE_PAIRS, NetConfig, TunnelType
from vdpad.virtio.framing import LEGACY_DESCRIPTORS, is_legacy
from vdpad.virtio.rings import MAX_RING_SIZE
from vdpad.wire.addresses import DEFAULT_SOCKET, DEFAULT_VARLINK, BadAddress, host_and_port
from vdpad.wire.datagrams import Peer

MAX_DEADLINE_MS = 600_000

MAX_UID = (1 << 32) - 2
"""The highest that a user or group can have: Linux include/linux/uidgid.h, uid_valid."""

_DEVICE = SoftwareConfig()
"""What a software device is like where the settings do not say."""


def _power_of_two(number: int) -> int:
    if number & (number - 1):
        raise PydanticCustomError("power_of_two", "expected a power of two")
    return number


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Misbehave(_Settings):
    """How a software device misbehaves, for trying out what a failure looks like."""

    faults: dict[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")], Fault] = {}
    """By position, counted from 0 in each restore."""
    order: Order = Order.AS_SENT
    seconds_a_command: Annotated[float, Field(ge=0, le=60)] = 0.0
    interrupts: bool = True

    def misbehaviour(self) -> Misbehaviour:
        """The same, for the device."""
        return Misbehaviour(
            faults={int(at): fault for at, fault in self.faults.items()},
            order=self.order,
            seconds_a_command=self.seconds_a_command,
            interrupts=self.interrupts,
        )


class Software(_Settings):
    """A software device of the daemon's own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    features: FeatureNames | None = None
    """Negotiated ones; None for all that it can."""
    mac: MacAddress = _DEVICE.net.mac
    max_queue_pairs: Annotated[int, Field(strict=True, ge=1, le=MAX_QUEUE_PAIRS)] = (
        _DEVICE.net.max_virtqueue_pairs
    )
    rss_max_key_size: Annotated[int, Field(strict=True, ge=0, le=255)] = (
        _DEVICE.net.rss_max_key_size
    )
    rss_max_indirection_table_length: Annotated[int, Field(strict=True, ge=0, le=0xFFFF)] = (
        _DEVICE.net.rss_max_indirection_table_length
    )
    supported_hash_types: HashTypeNames = _DEVICE.net.supported_hash_types
    ring_size: Annotated[
        int, Field(strict=True, ge=2, le=MAX_RING_SIZE), AfterValidator(_power_of_two)
    ] = _DEVICE.ring_size
    start_index: Annotated[int, Field(strict=True, ge=0, le=0xFFFF)] = _DEVICE.start_index
    """Where its ring's indices begin."""
    state_file: Path | None = None
    """Written after each restore with what the device then holds, as a state in JSON."""
    misbehave: Misbehave = Misbehave()

    @model_validator(mode="after")
    def _refuse_a_ring_without_room(self) -> Self:
        legacy = self.features is not None and is_legacy(self.features)
        if legacy and self.ring_size < LEGACY_DESCRIPTORS:
            least = f"expected at least {LEGACY_DESCRIPTORS} without VERSION_1 and ANY_LAYOUT"
            raise invalid((("ring_size",), "too-small", f"{least}, got {self.ring_size}"))
        return self

    def device(self) -> SoftwareConfig:
        """What such a device is like."""
        return SoftwareConfig(
            features=ALL_FEATURES if self.features is None else self.features,
            net=NetConfig(
                mac=self.mac,
                max_virtqueue_pairs=self.max_queue_pairs,
                rss_max_key_size=self.rss_max_key_size,
                rss_max_indirection_table_length=self.rss_max_indirection_table_length,
                supported_hash_types=self.supported_hash_types,
                supported_tunnel_types=frozenset(TunnelType),
            ),
            ring_size=self.ring_size,
            start_index=self.start_index,
            misbehaviour=self.misbehave.misbehaviour(),
        )


class Limits(_Settings):
    """How much is taken on; past a limit the answer is `overloaded`, at once.

    Of a user who is alone; of others half as much beside him (service/users/shares.py).
    """

    operations_at_once: Annotated[int, Field(strict=True, ge=1, le=65536)] = 256
    """Prepared or in their commit. A prepared one of 4100 commands takes about 0.5 MiB."""
    memory_mib: Annotated[int, Field(strict=True, ge=1, le=1 << 20)] = 192
    """What these take together, in MiB, as it is reckoned; one more may go past it."""
    operations_kept: Annotated[int, Field(strict=True, ge=1, le=65536)] = 1024
    """Records of all users for `status`; the oldest that have ended go first."""


class Replay(_Settings):
    """How a replay waits for its device."""

    deadline_ms: Annotated[int, Field(strict=True, ge=1, le=MAX_DEADLINE_MS)] = 5000
    """For a whole replay, where a request does not say."""
    poll_us: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 1000
    """How long to look at the ring before sleeping until the device interrupts."""


def _with_port(address: str) -> str:
    try:
        host_and_port(address)
    except BadAddress as error:
        raise PydanticCustomError("address", "{why}", {"why": str(error)}) from error
    return address


class Udp(_Settings):
    """Requests from other hosts: UDP, each datagram sealed."""

    listen: Annotated[str, AfterValidator(_with_port)] | None = None
    """host:port, or [IPv6 address]:port; None is off."""
    key_file: str | None = None
    """A path, or the name of a systemd credential; see vdpad/wire/keys.py."""
    ttl_s: Annotated[int, Field(strict=True, ge=1, le=3600)] = 30
    """How long after it was sealed a request is taken, in seconds."""

    @model_validator(mode="after")
    def _refuse_to_listen_without_keys(self) -> Self:
        if self.listen is not None and self.key_file is None:
            message = "listen makes it necessary; `vdpactl keygen FILE` makes one"
            raise invalid((("key_file",), "missing", message))
        return self


def _for_the_collector(path: Path) -> Path:
    if path.suffix != ".prom" or not path.is_absolute():
        raise PydanticCustomError(
            "textfile", "expected an absolute path that ends in .prom; node_exporter reads no other"
        )
    return path


class MetricsSettings(_Settings):
    """Metrics for Prometheus, through node_exporter's textfile collector."""

    textfile: Annotated[Path, AfterValidator(_for_the_collector)] | None = None
    """None for no metrics."""
    interval_s: Annotated[int, Field(strict=True, ge=1, le=3600)] = 15
    """From one writing to the next."""


Method = Literal[
    "info", "devices", "check", "prepare", "commit", "restore", "status", "cancel", "release"
]


def _id_of(kind: str, look_up: Callable[[str], int]) -> Callable[[int | str], int]:
    """A validator that takes a number, or a name that this host knows."""

    def number(given: int | str) -> int:
        if isinstance(given, int):
            return given
        try:
            return look_up(given)
        except KeyError:
            raise PydanticCustomError(
                kind, "expected a {kind} of this host, got {name}", {"kind": kind, "name": given}
            ) from None

    return number


_Number = Annotated[int, Field(strict=True, ge=0, le=MAX_UID)]
_Id = _Number | Annotated[str, Field(strict=True)]
_Uid = Annotated[_Id, AfterValidator(_id_of("user", lambda name: pwd.getpwnam(name).pw_uid))]
_Gid = Annotated[_Id, AfterValidator(_id_of("group", lambda name: grp.getgrnam(name).gr_gid))]


class Access(_Settings):
    """Who may: one of these users, or whoever has one of these groups as their own."""

    users: tuple[_Uid, ...] = ()
    groups: tuple[_Gid, ...] = ()
    """By the sender's own group, which the kernel tells; not by those that it is in besides."""
    other_hosts: bool = False
    """Also whoever has a key, over UDP."""

    def permits(self, peer: Peer) -> bool:
        """Whether a sender is among those named here, by what the kernel or its seal says of it."""
        if peer.sealed:
            return self.other_hosts
        return peer.uid in self.users or peer.gid in self.groups


class Recording(_Settings):
    """Where it is kept what operations came to, so that it survives a restart of the daemon."""

    directory: Path | None = None
    """On tmpfs, and the daemon's alone. None is `operations` in systemd's $RUNTIME_DIRECTORY;
    without that, nothing is kept."""


class Settings(_Settings):
    """What an operator decides, with what holds where nothing was said."""

    socket: Path = DEFAULT_SOCKET
    """Where datagrams are taken."""
    varlink: Path | None = None
    """Where connections are; None is DEFAULT_VARLINK beside the default `socket`, else nowhere."""
    socket_mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "0660"
    socket_group: str | None = None
    """Name of the group that both are given to; None leaves them the daemon's."""
    allowed_uids: tuple[_Number, ...] | None = None
    """Who may speak, by the kernel's word; None is everyone whom the socket's mode lets."""
    access: dict[Method, Access] = {}
    """By method; one that is not there is for all who may speak."""
    operators: Access = Access()
    """Who may have to do with all operations, beside root and the daemon's own user."""
    limits: Limits = Limits()
    replay: Replay = Replay()
    records: Recording = Recording()
    udp: Udp = Udp()
    metrics: MetricsSettings = MetricsSettings()
    software: tuple[Software, ...] = (Software(name="sim0"),)
    """Software devices; one named sim0 unless something else is configured."""

    @model_validator(mode="after")
    def _refuse_one_name_twice(self) -> Self:
        names = [device.name for device in self.software]
        twice = [at for at, name in enumerate(names) if name in names[:at]]
        if twice:
            message = f"another software device is named {names[twice[0]]} too"
            raise invalid((("software", twice[0], "name"), "duplicate", message))
        return self

    @property
    def stream_socket(self) -> Path | None:
        """Where connections are taken; None for nowhere."""
        if self.varlink is None and self.socket == DEFAULT_SOCKET:
            return DEFAULT_VARLINK
        return self.varlink

    def is_operator(self, peer: Peer) -> bool:
        """Whether this sender may have to do with what others prepared."""
        ours = not peer.sealed and peer.uid in (0, os.geteuid())
        return ours or self.operators.permits(peer)

    def taking(self, read: "Settings") -> tuple["Settings", frozenset[str], frozenset[str]]:
        """These settings with what of others can be taken while running.

        Returns:
            The settings to go on with, the names of those that were taken, and the names of those
            that differ and need a restart.
        """
        ours, others = dict(self), dict(read)
        differ = {name for name, value in ours.items() if others[name] != value}
        taken = differ & _TAKEN_WHILE_RUNNING
        going_on = self.model_copy(update={name: others[name] for name in taken})
        return going_on, frozenset(taken), frozenset(differ - taken)


_TAKEN_WHILE_RUNNING = {"allowed_uids", "access", "operators", "limits", "replay"}
