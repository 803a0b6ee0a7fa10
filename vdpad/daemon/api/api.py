"""The API: a request becomes a result, or a refusal. docs/api.md.

It knows no way that requests come (service/jsonrpc.py, service/varlink). They are checked in this
order, and the first thing that is wrong is answered: the method's name, whether the sender may
speak, the parameters. What becomes of an exception that is no refusal, service/answering.py says.
"""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import vdpad
from vdpad.api.devices import DeviceResult, all_devices
from vdpad.api.params import NoParams
from vdpad.api.results import CheckResult
from vdpad.daemon.api.listing import begun_with, listed
from vdpad.daemon.api.methods import plain, plain_summary
from vdpad.daemon.api.params import (
    CheckParams,
    CommitParams,
    MigrationParams,
    PrepareParams,
    ReleaseParams,
    RestoreParams,
    StateAndTargetParams,
    StatusParams,
    WatchParams,
    read_params,
)
from vdpad.daemon.api.refused import refused_event, subject_of
from vdpad.daemon.api.results import (
    InfoResult,
    LimitsResult,
    OperationResult,
    OperationsResult,
    ReleasedResult,
)
from vdpad.daemon.faults import refusal_of
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operation import RestoreRequest
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.phases import outcome
from vdpad.daemon.operations.requester import Requester
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.settings import MAX_DEADLINE_MS, Settings
from vdpad.daemon.targets.resolve import Targets
from vdpad.daemon.targets.target_params import KINDS, DescriptorPlaces
from vdpad.queues.lent_memory import BadLend
from vdpad.restore.report import MAX_LINES, Report
from vdpad.service.answering import Answering, SenderNotAllowed, refuse_unknown_uid
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.wire.datagrams import MAX_DESCRIPTORS, Peer

API_VERSION = 1
FORMATS = ("native",)

WATCH = "watch"
"""The method that only a connection has: its results are without end."""


class Api:
    """All methods, over one set of operations and targets."""

    def __init__(
        self,
        settings: Settings,
        operations: Operations,
        targets: Targets,
        running: RunningCommits,
        changes: Changes,
        announce: Announce = log_event,
    ) -> None:
        self._settings = settings
        self._told: dict[int, InfoResult] = {}
        """What the daemon is, by the longest datagram of the way that was asked over."""
        self._operations = operations
        self._targets = targets
        self._running = running
        self._changes = changes
        self._announce = announce
        self._methods: Mapping[str, Callable[[Request], Awaitable[object]]] = {
            "info": self._info,
            "devices": self._devices,
            "check": self._check,
            "prepare": self._prepare,
            "commit": self._commit,
            "restore": self._restore,
            "status": self._status,
            "cancel": self._cancel,
            "release": self._release,
        }
        self._answering = Answering((*self._methods, WATCH), refusal_of, announce)

    def use(self, settings: Settings) -> None:
        """Other settings from the next request on."""
        self._settings = settings
        self._told.clear()
        self._changes.ask_again()

    @property
    def answered(self) -> Counter[tuple[str, str]]:
        """Requests by method and how they were answered: "ok", or the error's kind."""
        return self._answering.counts

    async def call(self, request: Request) -> Any:
        """The result of a request; see Served.

        Cancellation leaves a commit that was begun running. The peer's descriptors stay the
        caller's to close.
        """
        with self._answering.refusing(request, partial(refused_event, subject_of(request))):
            result = plain(request.method, await self._called(request))
        self._answering.done(request.method)
        return result

    async def watch(self, request: Request) -> AsyncGenerator[Any]:
        """Summaries of all operations in the states that are asked for, then of each that changes.

        For who may call `status`, and for as long as he may. Ends when it is closed.

        Raises:
            Refusal: not-allowed, invalid-params; overloaded: there are no more, and why.
        """
        with self._answering.refusing(request, partial(refused_event, subject_of(request))):
            self._refuse_unless_allowed("status", request.peer)
            params = read_params(WatchParams, request)
            self._answering.done(WATCH)
            with self._changes.watched(partial(self._reader, request.peer)) as watch:
                for each in begun_with(self._operations.newest_first(watch.reader), params):
                    watch.refuse_if_revoked()
                    yield plain_summary(each)
                async for each in watch.changes():
                    yield plain_summary(each)

    def refused(self, refusal: Refusal, method: object = None) -> None:
        """Counts what was refused before it was a request."""
        self._answering.refused(refusal, method)

    async def _called(self, request: Request) -> object:
        method = self._methods.get(request.method)
        if method is None:
            there = ", ".join(self._methods)
            raise Refusal(Kind.METHOD_NOT_FOUND, f"expected one of the methods {there}")
        self._refuse_unless_allowed(request.method, request.peer)
        if request.peer.too_many_fds:
            raise BadLend(f"expected at most {MAX_DESCRIPTORS} descriptors, got more")
        return await method(request)

    def _refuse_unless_allowed(self, method: str, peer: Peer) -> None:
        refuse_unknown_uid(self._settings.allowed_uids, peer, "setting allowed_uids")
        access = self._settings.access.get(method)  # type: ignore[call-overload]
        if access is not None and not access.permits(peer):
            who = "another host" if peer.sealed else f"uid {peer.uid} with gid {peer.gid}"
            raise SenderNotAllowed(f"{who} may not call {method} (setting access.{method})")

    # --- the methods ---

    async def _info(self, request: Request) -> InfoResult:
        read_params(NoParams, request)
        limit = request.peer.limit
        told = self._told.get(limit)
        if told is None:
            told = self._told[limit] = _info(self._settings, limit)
        return told

    async def _check(self, request: Request) -> CheckResult:
        await self._running.until_idle()
        params = read_params(CheckParams, request)
        target = self._targets.resolve(params.target, request.peer.user)
        terms = await target.look(params.state.features)
        return CheckResult.of(
            params.state, terms.capabilities, terms.geometry, event_idx=terms.event_idx
        )

    async def _prepare(self, request: Request) -> OperationResult:
        arrived_ns = time.perf_counter_ns()
        await self._running.until_idle()
        # What it gave way for is not its own time.
        waited_ns = time.perf_counter_ns() - arrived_ns
        request.began_ns += waited_ns
        params = read_params(PrepareParams, request)
        wanted = self._restore_request(params, request, params.committer)
        return OperationResult.of((await self._operations.prepare(wanted)).snapshot())

    async def _commit(self, request: Request) -> Report:
        params = read_params(CommitParams, request)
        return await self._outcome(
            params.migration, params.deadline_ms, params.descriptors, request.peer
        )

    async def _restore(self, request: Request) -> Report:
        return await self._outcome(*await self._prepared(request), request.peer)

    async def _prepared(self, request: Request) -> tuple[str, int | None, DescriptorPlaces]:
        """Prepares, and keeps of the request what its commit needs: the state may be large."""
        params = read_params(RestoreParams, request)
        await self._operations.prepare(self._restore_request(params, request))
        return params.migration, params.deadline_ms, params.descriptors

    async def _outcome(
        self, migration: str, deadline_ms: int | None, places: DescriptorPlaces, peer: Peer
    ) -> Report:
        fds = _lent(peer.fds, places)
        begun = self._operations.begin(migration, self._requester(peer), fds, deadline_ms)
        # What was needed of them is duplicated, and the wait may be long.
        peer.close_fds()
        return await outcome(begun)

    async def _status(self, request: Request) -> OperationResult | OperationsResult:
        params = read_params(StatusParams, request)
        requester = self._requester(request.peer)
        if params.migration is not None:
            operation = self._operations.get(params.migration, requester)
            return OperationResult.of(operation.snapshot())
        return listed(self._operations.newest_first(requester), params, request.peer.limit)

    async def _cancel(self, request: Request) -> OperationResult:
        migration = read_params(MigrationParams, request).migration
        operation = await self._operations.cancel(migration, self._requester(request.peer))
        return OperationResult.of(operation.snapshot())

    async def _devices(self, request: Request) -> tuple[DeviceResult, ...]:
        read_params(NoParams, request)
        return await all_devices()

    async def _release(self, request: Request) -> ReleasedResult:
        device = read_params(ReleaseParams, request).device
        kept = self._targets.keeper.named(device)
        self._operations.device_goes(kept.owner, self._requester(request.peer))
        await self._targets.keeper.close(kept)
        return ReleasedResult()

    def _restore_request(
        self, params: StateAndTargetParams, request: Request, committer: int | None = None
    ) -> RestoreRequest:
        requester = self._requester(request.peer)
        return RestoreRequest(
            migration=params.migration,
            state=params.state,
            target=self._targets.resolve(params.target, request.peer.user),
            target_json=params.target.model_dump(mode="json", exclude_unset=True),
            began_ns=request.began_ns,
            requester=requester,
            owners=requester.owning(committer),
        )

    def _reader(self, peer: Peer) -> Requester:
        self._refuse_unless_allowed("status", peer)
        return self._requester(peer)

    def _requester(self, peer: Peer) -> Requester:
        return Requester(peer.user, self._settings.is_operator(peer))


def _info(settings: Settings, limit: int) -> InfoResult:
    limits = settings.limits
    return InfoResult(
        name="vdpad",
        version=vdpad.__version__,
        api=API_VERSION,
        limits=LimitsResult(
            datagram_bytes=limit,
            descriptors=MAX_DESCRIPTORS,
            operations_at_once=limits.operations_at_once,
            operations_kept=limits.operations_kept,
            report_lines=MAX_LINES,
            deadline_ms=settings.replay.deadline_ms,
            deadline_ms_max=MAX_DEADLINE_MS,
        ),
        formats=FORMATS,
        targets=KINDS,
    )


def _lent(fds: list[int], places: DescriptorPlaces) -> list[int]:
    """A lent ring's memory, kick and call among the descriptors that came; those that came."""
    order = (places.memory, places.kick, places.call)
    return [fds[at] for at in order if at < len(fds)]
