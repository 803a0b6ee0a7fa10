"""Datagrams that nobody should send: random ones, and valid ones with something done to them."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.daemon.support import HASH_REPORT, STATE, Json, request, software, vlans

_METHODS = ["info", "check", "prepare", "commit", "restore", "status", "cancel", "release"]

_LENT: Json = {
    "kind": "lent",
    "features": ["CTRL_VQ", "CTRL_VLAN", "MQ"],
    "config": {"max_virtqueue_pairs": 4},
    "ring": {
        "size": 64,
        "memory": {"iova": 1048576, "size": 65536},
        "descriptors": 1048576,
        "available": 1049600,
        "used": 1053696,
        "buffers": {"iova": 1056768, "size": 32768},
        "next_available": 0,
        "next_used": 0,
    },
}
_TARGETS: list[Json] = [software(), software(), _LENT, {"kind": "vhost-vdpa", "device": "vdpa0"}]
_STATES: list[Json] = [STATE, HASH_REPORT, vlans(1, [5, 9])]

_ODD: list[object] = [
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e300, 2**31, 2**63, 2**64, -(2**64), 10**400),
    *("", "0", "\0", "\ud800", "x" * 3000, "é\u202e\x1b[31m", "vm-1", "..", "null"),
    *([], {}, [[]], [{}], {"": None}, [0] * 500, {"kind": "lent"}, {"kind": "software"}),
]


def _odd(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(_ODD))


def datagrams(seed: int) -> Iterator[bytes]:
    """Without an end, and the same each time."""
    chance = random.Random(seed)
    while True:
        yield chance.choice(_WAYS)(chance)


def _valid(chance: random.Random) -> Json:
    params: Json = {"migration": f"m{chance.randrange(200)}"}
    method = chance.choice(_METHODS)
    if method in ("check", "prepare", "restore"):
        params |= {"state": chance.choice(_STATES), "target": chance.choice(_TARGETS)}
    if method in ("info", "check"):
        del params["migration"]
    message: Json = json.loads(request(method, chance.randrange(10**6), **params))
    return message


def _packed(message: object) -> bytes:
    return json.dumps(message).encode()


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(400))


def _cut(chance: random.Random) -> bytes:
    whole = _packed(_valid(chance))
    return whole[: chance.randrange(len(whole))]


def _flipped(chance: random.Random) -> bytes:
    data = bytearray(_packed(_valid(chance)))
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _spliced(chance: random.Random) -> bytes:
    one, two = (_packed(_valid(chance)) for _ in range(2))
    return one[: chance.randrange(len(one))] + two[chance.randrange(len(two)) :]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _swapped(chance: random.Random) -> bytes:
    message = _valid(chance)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(list(_places(message)))
        container[key] = _odd(chance)
    return _packed(message)


def _pruned(chance: random.Random) -> bytes:
    message = _valid(chance)
    container, key = chance.choice(list(_places(message)))
    del container[key]
    return _packed(message)


def _grown(chance: random.Random) -> bytes:
    message = _valid(chance)
    objects = [each for each, _ in _places(message) if isinstance(each, dict)]
    chance.choice(objects)[str(_odd(chance))] = _odd(chance)
    return _packed(message)


def _crossed(chance: random.Random) -> bytes:
    return _packed({**_valid(chance), "method": chance.choice(_METHODS)})


def _untouched(chance: random.Random) -> bytes:
    return _packed(_valid(chance))


_WAYS: list[Callable[[random.Random], bytes]] = [
    *(_noise, _cut, _flipped, _spliced, _pruned, _grown, _crossed, _untouched),
    *([_swapped] * 4),
]
