"""Preparing: from a wish to an operation whose commands are encoded, which takes its time."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from vdpad.daemon.operations.operation import Operation, State, Wish
from vdpad.daemon.targets.interface import Terms
from vdpad.restore.plan import DoesNotFit, Incompatible, Plan, plan
from vdpad.restore.program import by_name, encode
from vdpad.state.model import NetState
from vdpad.state.problems import summary


@dataclass(frozen=True, slots=True)
class Preparing:
    """A prepare under way, which takes time where a device comes up."""

    digest: str
    task: "asyncio.Task[Any]"
    """The request's."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


async def prepared(wish: Wish, digest: str) -> Operation:
    """The operation for a wish, its device up. On cancellation the device is let go of.

    Raises:
        DoesNotFit; what the target raises.
    """
    destination = await wish.target.bring_up(wish.state.features, wish.migration)
    try:
        planned = _plan_or_refuse(wish.state, destination)
        program = encode(planned.commands, destination.geometry, event_idx=destination.event_idx)
    except BaseException:
        await destination.give_up()
        raise
    return Operation(
        migration=wish.migration,
        digest=digest,
        destination=destination,
        target_json=wish.target_json,
        device=destination.name,
        commands=len(program.commands),
        doorbells=program.most_doorbells,
        widened=planned.widened,
        prepare_us=_since(wish),
        program=program,
        memory=program.memory,
        by_name=by_name(program.commands),
    )


def cut_short(wish: Wish, digest: str) -> Operation:
    """What is known of a prepare that the daemon's end cut short."""
    return Operation(
        migration=wish.migration,
        digest=digest,
        destination=None,
        target_json=wish.target_json,
        device=_as_wished(wish.target_json),
        commands=0,
        doorbells=0,
        widened=(),
        prepare_us=_since(wish),
        state=State.CANCELLED,
        renewable=True,
    )


def _as_wished(target: dict[str, Any]) -> str:
    """The device as the caller named it; "" for a ring that is lent."""
    return str(target.get("device") or target.get("name") or target.get("path") or "")


def _since(wish: Wish) -> int:
    return (time.perf_counter_ns() - wish.began_ns) // 1000


def _plan_or_refuse(state: NetState, terms: Terms) -> Plan:
    """The plan of a state for a device.

    Raises:
        DoesNotFit: with all problems.
    """
    planned = plan(state, terms.capabilities)
    if isinstance(planned, Incompatible):
        raise DoesNotFit(summary(planned.problems), planned.problems)
    return planned
