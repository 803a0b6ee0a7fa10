"""Preparing: from a request to an operation whose commands are encoded, which takes its time."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from vdpad.daemon.operations.bookkeeping import Bookkeeping
from vdpad.daemon.operations.operation import Operation, RestoreRequest
from vdpad.daemon.operations.phases import Ready
from vdpad.daemon.records.details import Details
from vdpad.daemon.records.owners import Owners
from vdpad.daemon.targets.interface import Destination
from vdpad.restore.plan import DoesNotFit, Incompatible, Plan, plan
from vdpad.restore.program import by_name, encode
from vdpad.restore.terms import Terms
from vdpad.state.model import NetState
from vdpad.state.problems import summary


@dataclass(frozen=True, slots=True)
class Preparing:
    """A prepare under way, which takes time where a device comes up."""

    digest: str
    owners: Owners
    task: "asyncio.Task[Any]"
    """The request's."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


async def prepared(wanted: RestoreRequest, digest: str, bookkeeping: Bookkeeping) -> Operation:
    """The operation for a request, its device up and its record begun.

    On cancellation the device is let go of, and nothing is recorded.

    Raises:
        DoesNotFit; what the target raises.
    """
    destination = await wanted.target.bring_up(wanted.state.features, wanted.migration)
    try:
        return _operation(wanted, digest, destination, bookkeeping)
    except BaseException:
        await destination.give_up()
        raise


def _operation(
    wanted: RestoreRequest, digest: str, destination: Destination, bookkeeping: Bookkeeping
) -> Operation:
    """
    Raises:
        DoesNotFit
    """
    planned = _plan_or_refuse(wanted.state, destination)
    program = encode(
        planned.commands,
        destination.geometry,
        event_idx=destination.event_idx,
        legacy=destination.capabilities.is_legacy,
    )
    details = _details(
        wanted,
        digest,
        device=destination.name,
        commands=len(program.commands),
        doorbells=program.most_doorbells,
        widened=planned.widened,
    )
    ready = Ready(
        destination=destination,
        program=program,
        record=bookkeeping.begin(details, program),
        by_name=by_name(program.commands),
        memory=program.memory,
    )
    return Operation(details, ready)


def cut_short(wanted: RestoreRequest, digest: str) -> Details:
    """What is known of a prepare that the daemon's end cut short."""
    device = _target_named(wanted.target_json)
    return _details(wanted, digest, device=device, commands=0, doorbells=0, widened=())


def _details(
    wanted: RestoreRequest,
    digest: str,
    *,
    device: str,
    commands: int,
    doorbells: int,
    widened: tuple[str, ...],
) -> Details:
    """The details, as of now."""
    prepare_us = (time.perf_counter_ns() - wanted.began_ns) // 1000
    return Details(
        migration=wanted.migration,
        digest=digest,
        target=wanted.target_json,
        device=device,
        commands=commands,
        doorbells=doorbells,
        widened=widened,
        prepare_us=prepare_us,
        owners=wanted.owners,
        began=datetime.now(UTC) - timedelta(microseconds=prepare_us),
    )


def _target_named(target: dict[str, Any]) -> str:
    """The device as the caller named it; "" for a ring that is lent."""
    return str(target.get("device") or target.get("name") or target.get("path") or "")


def _plan_or_refuse(state: NetState, terms: Terms) -> Plan:
    """The plan of a state for a device.

    Raises:
        DoesNotFit: with all problems.
    """
    planned = plan(state, terms.capabilities)
    if isinstance(planned, Incompatible):
        raise DoesNotFit(summary(planned.problems), planned.problems)
    return planned
