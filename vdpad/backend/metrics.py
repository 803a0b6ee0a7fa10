"""Metrics of a back end for Prometheus: what its device and its front ends came to.

assembly.py imports it where metrics are asked for (service/metrics.py says why). Each series has
the back end's name as its label `device`: several of a host write each a file of its own, and
node_exporter refuses a series that is in two.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

import vdpad
from vdpad.backend.control.results import BackEndPhase
from vdpad.backend.events import DeviceFailed, DeviceSwitched, GuestRestored, SwitchFailed
from vdpad.backend.process_events import DeviceStarted, FrontEndCame, FrontEndRefused
from vdpad.backend.shown import CountsOfCommands
from vdpad.service import metrics
from vdpad.service.events.event import Event


@dataclass(frozen=True, slots=True)
class BackEndSources:
    """What others count, looked up when metrics are written. None of them may take long."""

    phase: Callable[[], BackEndPhase]
    commands: Callable[[], CountsOfCommands]
    packets_dropped: Callable[[], int | None]
    """None where the device does not tell."""
    follows: Callable[[], bool] | None
    """Whether the device has its guest's filter; None where nobody follows that."""
    requests: Callable[[], Mapping[tuple[str, str], int]]
    """By method and result."""
    datagrams_refused: Callable[[], int]
    replies_dropped: Callable[[], int]
    journal_dropped: Callable[[], int]
    listener_failures: Callable[[], int]


_Rows = Iterable[tuple[tuple[str, ...], float]]


class BackEndMetrics(Collector):
    """All metrics of one back end: a listener to its events, and what is looked up."""

    def __init__(self, device: str, sources: BackEndSources) -> None:
        """
        Args:
            device: the back end's name.
            sources: what others count.
        """
        self._device = device
        self._sources = sources
        self._starts = {"yes": 0, "no": 0}
        self._heard = dict.fromkeys((FrontEndCame, FrontEndRefused, DeviceFailed), 0)
        self._restores, self._restoring = 0, 0.0
        self._switches = {"ok": 0, "failed": 0}
        self._paused = 0.0
        self._registry = metrics.registry()
        self._registry.register(self)

    def heard(self, event: Event) -> None:
        """Counts an event."""
        match event:
            case DeviceStarted():
                self._starts["yes" if event.goes_on else "no"] += 1
            case GuestRestored():
                self._restores += 1
                self._restoring += event.duration_us / 1e6
            case DeviceSwitched():
                self._switches["ok"] += 1
                self._paused += event.paused_us / 1e6
            case SwitchFailed():
                self._switches["failed"] += 1
            case FrontEndCame() | FrontEndRefused() | DeviceFailed():
                self._heard[type(event)] += 1

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return metrics.rendered(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Their names, so that none is there twice."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """All of them as they are now."""
        yield self._gauges("info", "1, with vdpad's version.", _one(vdpad.__version__), "version")
        yield from self._of_the_device()
        yield from self._of_front_ends()
        yield from self._of_askers()

    def _of_the_device(self) -> Iterator[Metric]:
        now = self._sources
        phase, counts = now.phase(), now.commands()
        yield self._gauges(
            "phase",
            "1 for the phase that `status` tells, else 0.",
            [((each.value,), each is phase) for each in BackEndPhase],
            "phase",
        )
        yield self._counters(
            "commands",
            "Commands of the guest's that the device has answered, by result.",
            [(("acked",), counts.acked), (("refused",), counts.refused)],
            "result",
        )
        yield self._counters(
            "starts",
            "Starts of the device, by whether its guest went on.",
            metrics.by_one(self._starts),
            "goes_on",
        )
        yield self._counters("restores", "Guests given back what they set.", _n(self._restores))
        yield self._counters(
            "restore_seconds", "Time that this took, all in all.", _n(self._restoring)
        )
        yield self._counters(
            "switches",
            "Switches to another device, by result.",
            metrics.by_one(self._switches),
            "result",
        )
        yield self._counters(
            "switch_pause_seconds",
            "Standstill of queues by switches, all in all.",
            _n(self._paused),
        )
        yield self._counters(
            "failures", "Times that a guest was told to reset.", _n(self._heard[DeviceFailed])
        )
        dropped = now.packets_dropped()
        if dropped is not None:
            yield self._counters("packets_dropped", "Packets that came to nothing.", _n(dropped))
        if now.follows is not None:
            followed = "1 where the device has the filter that its guest's monitor tells, else 0."
            yield self._gauges("filter_followed", followed, _n(now.follows()))

    def _of_front_ends(self) -> Iterator[Metric]:
        yield self._counters("front_ends", "VMMs that connected.", _n(self._heard[FrontEndCame]))
        yield self._counters(
            "front_end_refusals",
            "What VMMs asked for and was not done.",
            _n(self._heard[FrontEndRefused]),
        )

    def _of_askers(self) -> Iterator[Metric]:
        now = self._sources
        yield self._counters(
            "requests",
            "Requests answered, by method and result: ok, or the error's kind.",
            now.requests().items(),
            "method",
            "result",
        )
        yield self._counters(
            "datagrams_refused",
            "Datagrams that were refused before they became requests.",
            _n(now.datagrams_refused()),
        )
        yield self._counters(
            "replies_dropped",
            "Replies that could not be sent: the client was gone, or did not read.",
            _n(now.replies_dropped()),
        )
        yield self._counters(
            "journal_dropped", "Log entries that did not get through.", _n(now.journal_dropped())
        )
        yield self._counters(
            "listener_failures",
            "Faults of vdpad's own in its log or metrics.",
            _n(now.listener_failures()),
        )

    def _gauges(self, name: str, documentation: str, rows: _Rows, *labels: str) -> Metric:
        full = f"vdpad_back_end_{name}"
        return metrics.gauges(full, documentation, ("device", *labels), self._named(rows))

    def _counters(self, name: str, documentation: str, rows: _Rows, *labels: str) -> Metric:
        full = f"vdpad_back_end_{name}"
        return metrics.counters(full, documentation, ("device", *labels), self._named(rows))

    def _named(self, rows: _Rows) -> _Rows:
        return (((self._device, *labels), number) for labels, number in rows)


def _n(number: float) -> _Rows:
    return [((), number)]


def _one(label: str) -> _Rows:
    return [((label,), 1)]
