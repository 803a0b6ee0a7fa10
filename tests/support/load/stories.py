"""What clients ask, and what must come: stories of a few requests, each outcome known beforehand.

Each client has four devices that nobody else uses, so nothing of another's can change an outcome.
Three of them work. The fourth depends on the client's number: it refuses its third command, falls
silent at its second, returns its first under an impossible id, or returns all in a shuffled order.
"""

import random
from collections.abc import Awaitable, Callable, Iterator

from tests.support.load.client import Client, Json, content_of, is_refusal, outcome_of

CLIENTS = 64
DEVICES_PER_CLIENT = 4

_ODD: tuple[Json, ...] = (
    {"faults": {"2": "err"}},
    {"faults": {"1": "silence"}},
    {"faults": {"0": "id-out-of-range"}},
    {"order": "shuffled"},
)

# For a device that never answers, in ms: longer than it takes to have others refused meanwhile.
_DEADLINE_MS = 300

# endpoints' and operations' own limits: so many requests wait for one commit.
_WAITING = 8


def devices() -> list[Json]:
    """The settings of all software devices."""
    return [
        {"name": _device(client, at), **({"misbehave": _odd_of(client)} if at == 0 else {})}
        for client in range(CLIENTS)
        for at in range(DEVICES_PER_CLIENT)
    ]


def _device(client: int, at: int) -> str:
    return f"sim{client * DEVICES_PER_CLIENT + at}"


def _odd_of(client: int) -> Json:
    return _ODD[client % len(_ODD)]


def _target(client: Client, at: int) -> Json:
    return {"kind": "software", "name": _device(client.number, at)}


def _state(*vids: int) -> Json:
    """One of len(vids) + 3 commands."""
    return {
        "version": 1,
        "features": ["CTRL_VQ", "CTRL_RX", "CTRL_VLAN", "CTRL_MAC_ADDR"],
        "mac": "52:54:00:12:34:56",
        "vlans": list(vids),
        "rx": {"promisc": False, "allmulti": True},
    }


def _wish(client: Client, *vids: int) -> Json:
    """A new migration to one of the devices that work."""
    at = random.randrange(1, DEVICES_PER_CLIENT)
    migration = client.migration()
    return {"migration": migration, "state": _state(*vids), "target": _target(client, at)}


def _odd_wish(client: Client, *vids: int) -> Json:
    """A new migration to the device that does not."""
    target = _target(client, 0)
    return {"migration": client.migration(), "state": _state(*vids), "target": target}


def _late_wish(client: Client) -> Json:
    """One that ends by its deadline."""
    return {**_odd_wish(client, 1), "deadline_ms": _DEADLINE_MS}


def _same(client: Client, what: str, one: object, other: object) -> None:
    client.tally.judge(what, "the same", "the same" if one == other else "another", {"got": other})


# --- stories ---


async def migrated(client: Client) -> None:
    """A migration as an orchestrator does it, and its last request once more."""
    wish = _wish(client, 1, 42)
    checked = await client.expect("compatible", "check", state=wish["state"], target=wish["target"])
    prepared = await client.expect("prepared", "prepare", **wish)
    _same(client, "commands", checked.get("commands"), prepared.get("commands"))
    report = await client.expect("restored", "commit", migration=wish["migration"])
    status = await client.expect("restored", "status", migration=wish["migration"])
    _same(client, "report in status", report, status.get("report"))
    _same(client, "restore again", report, await client.expect("restored", "restore", **wish))


async def restored(client: Client) -> None:
    """At once, and asked for again in both ways."""
    wish = _wish(client, random.randrange(4096))
    report = await client.expect("restored", "restore", **wish)
    again = await client.expect("restored", "commit", migration=wish["migration"])
    _same(client, "commit again", report, again)
    prepared = await client.expect("restored", "prepare", **wish)
    _same(client, "prepare again", report, prepared.get("report"))


async def called_off(client: Client) -> None:
    """Prepared, and then the source went on."""
    wish = _wish(client, 5)
    migration = wish["migration"]
    await client.expect("prepared", "prepare", **wish)
    await client.expect("cancelled", "cancel", migration=migration)
    await client.expect("conflict", "commit", migration=migration)
    await client.expect("cancelled", "cancel", migration=migration)


async def contradicted(client: Client) -> None:
    """One name for two states, which is nobody's wish."""
    wish = _wish(client, 7)
    await client.expect("restored", "restore", **wish)
    other = {**wish, "state": _state(8)}
    await client.expect("conflict", "restore", **other)
    await client.expect("conflict", "prepare", **other)


async def looked(client: Client) -> None:
    """What monitoring does, and a state that does not fit."""
    for _ in range(4):
        await client.expect("ok", "info")
    await client.expect("no-such-migration", "status", migration=client.migration())
    rss = {"features": ["CTRL_VQ", "MQ"], "queue_pairs": 4096}
    wish = {"state": {"version": 1, **rss}, "target": _target(client, 1)}
    await client.expect("incompatible", "check", **wish)
    await client.expect("incompatible", "restore", migration=client.migration(), **wish)


async def misspoken(client: Client) -> None:
    """Requests that are not in order, and datagrams that nobody should send."""
    target = {"kind": "software", "name": "nobody's"}
    wish = {**_wish(client, 1), "target": target}
    await client.expect("no-such-device", "prepare", **wish)
    await client.expect("invalid-params", "restore", **{**wish, "state": {"version": True}})
    await client.expect("method-not-found", "reset")
    await client.expect("no-such-migration", "commit", migration=client.migration())
    for expected, datagram in HOSTILE:
        await client.expect_of(expected, "datagram", datagram)


HOSTILE = (
    ("parse-error", b"\xff\xfe"),
    ("parse-error", b"[" * 5000),
    ("parse-error", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"info"}'),
    ("invalid-request", b'[{"jsonrpc":"2.0","id":1,"method":"info"}]'),
    ("invalid-request", b'{"jsonrpc":"2.0","id":1,"method":"info","params":[]}'),
    ("invalid-params", b'{"jsonrpc":"2.0","id":1,"method":"status","params":{"migration":1}}'),
    ("ok", b'{"jsonrpc":"2.0","id":1,"method":"info"}'.ljust(8000)),
)


async def refused(client: Client) -> None:
    """On a device that refuses its third command, the first VLAN's."""
    wish = _odd_wish(client, 9, 10)
    error = await client.expect("rejected", "restore", **wish)
    lines = error.get("report", {}).get("rejected", [])
    told = [(line["index"], line["command"], line["arguments"]) for line in lines]
    _same(client, "refused command", [(2, "VLAN_ADD", "vid=10")], told)
    _same(client, "rejected again", error, await client.expect("rejected", "restore", **wish))


async def broken(client: Client) -> None:
    """On a device that breaks the ring."""
    wish = _odd_wish(client, 9)
    await client.expect("device-broken", "restore", **wish)
    await client.expect("device-broken", "commit", migration=wish["migration"])
    await client.expect("failed", "status", migration=wish["migration"])


async def shuffled(client: Client) -> None:
    """On a device that returns commands in any order."""
    await client.expect("restored", "restore", **_odd_wish(client, *range(20)))


async def held(client: Client) -> None:
    """While a device keeps silent, another migration wants it, and the first is called off."""
    wish, other = _late_wish(client), _late_wish(client)
    replies = await client.at_once(
        [
            ("restore", wish),
            ("restore", other),
            ("cancel", {"migration": wish["migration"]}),
        ]
    )
    _judge_in_order(client, replies, ("restore", "restore", "cancel"), "busy")
    if any(place == 1 and outcome_of("restore", reply) == "busy" for place, reply in replies):
        await client.expect("cancelled", "cancel", migration=other["migration"])


async def crowded(client: Client) -> None:
    """While a device keeps silent, one more than may wait for its commit ask for it."""
    wish = _late_wish(client)
    replies = await client.at_once([("restore", wish)] * (_WAITING + 1))
    _judge_in_order(client, replies, ("restore",) * (_WAITING + 1), "overloaded")


def _judge_in_order(
    client: Client, replies: list[tuple[int, Json]], methods: tuple[str, ...], meanwhile: str
) -> None:
    """Until the deadline comes the others get `meanwhile`; what is looked at later gets its end.

    A machine with something else to do may let the deadline pass before all was looked at.
    """
    past = False
    for place, reply in replies:
        if is_refusal(reply):
            client.tally.refused += 1
            continue
        method, outcome = methods[place], outcome_of(methods[place], reply)
        past = past or outcome in ("timeout", "failed")
        expected = ("failed" if method == "cancel" else "timeout") if past else meanwhile
        client.tally.judge(method, expected, outcome, content_of(reply))


Story = Callable[[Client], Awaitable[None]]

_ODD_STORIES: tuple[tuple[Story, ...], ...] = (
    (refused,),
    (held, crowded),
    (broken,),
    (shuffled,),
)

_USUAL: dict[Story, int] = {
    migrated: 4,
    restored: 4,
    called_off: 2,
    contradicted: 1,
    looked: 4,
    misspoken: 3,
}
_STORIES, _WEIGHTS = list(_USUAL), list(_USUAL.values())

# How often a client turns to its odd device. Where that is a silent one it waits for the deadline.
_ODD_CHANCE = 0.1
_SILENT_CHANCE = 0.01


def stories(client: Client, chance: random.Random) -> Iterator[Story]:
    """What this client does, without end: what its odd device is for first, then as it comes."""
    odd = _ODD_STORIES[client.number % len(_ODD_STORIES)]
    yield from odd
    odd_chance = _SILENT_CHANCE if held in odd else _ODD_CHANCE
    while True:
        if chance.random() < odd_chance:
            yield chance.choice(odd)
        else:
            yield chance.choices(_STORIES, _WEIGHTS)[0]
