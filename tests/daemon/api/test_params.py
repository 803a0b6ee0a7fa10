"""What wrong parameters cost: problems are made by the score, however many things are wrong.

Counted, not timed: pydantic takes longest for the errors that it makes.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tests.daemon.support import software
from vdpad.daemon.api.params import CheckParams, read_params
from vdpad.service.refusal import Refusal
from vdpad.service.request import Request
from vdpad.wire.datagrams import MAX_DATAGRAM, Peer

# As many names as a request may have, each unknown.
_MAX_ERRORS = 1100

Wrap = Callable[[str], str]

FEATURES = '"features":["CTRL_VQ","CTRL_RX","CTRL_VLAN","MQ","RSS","HASH_REPORT","VQ_NOTF_COAL"]'


def _in_state(before: str, behind: str) -> Wrap:
    state = f'{{"version":1,{FEATURES},{before}%s{behind}}}'
    return lambda inside: _request(state.replace("%s", inside), json.dumps(software()))


def _in_target(before: str, behind: str) -> Wrap:
    state = f'{{"version":1,{FEATURES}}}'
    return lambda inside: _request(state, f'{{"kind":"lent",{before}{inside}{behind}}}')


def _request(state: str, target: str) -> str:
    return f'{{"params":{{"state":{state},"target":{target}}}}}'


_RSS = '"rss":{"unclassified_queue":0,"max_tx_queues":1,"key":"aa",'

LISTS = {
    "features": lambda inside: _request(
        f'{{"version":1,"features":[{inside}]}}', json.dumps(software())
    ),
    "vlans": _in_state('"vlans":[', "]"),
    "unicast": _in_state('"mac_table":{"unicast":[', "]}"),
    "multicast": _in_state('"mac_table":{"multicast":[', "]}"),
    "indirection table": _in_state(_RSS + '"hash_types":[],"indirection_table":[', "]}"),
    "RSS hash types": _in_state(_RSS + '"indirection_table":[0],"hash_types":[', "]}"),
    "hash types": _in_state('"hash_report":{"key":"aa","hash_types":[', "]}"),
    "offloads": _in_state('"guest_offloads":[', "]"),
    "no list": _in_state('"rx":[', "]"),
    "unknown": _in_state('"x":[', "]"),
    "target's features": _in_target('"features":[', "]"),
    "target's hash types": _in_target('"config":{"supported_hash_types":[', "]}"),
}
ENTRIES = ["-1", "9" * 60, "1.5", "true", "null", '""', '"x"', '"' + "x" * 999 + '"', '"bit_1"']
ENTRIES += ['"52:54:00:12:34:56"', '"01:00:5e:00:00:01"', "[]", "{}", '{"a":1}', "[[[[]]]]"]

OBJECTS = {
    "state": _in_state("", ""),
    "RSS": _in_state('"rss":{', "}"),
    "coalescing": _in_state('"coalescing":{', "}"),
    "queues": _in_state('"coalescing":{"queues":{', "}}"),
    "queue": _in_state('"coalescing":{"queues":{"0":{', "}}}"),
    "target": _in_target("", ""),
    "ring": _in_target('"ring":{', "}"),
    "memory": _in_target('"ring":{"memory":{', "}}"),
}
MEMBERS = ['"%d":0', '"%d":{}', '"%d":null', '"%0200d":0', '"q%d":{}', '"%d":{"max_packets":-1}']


def _errors_of(document: str) -> int:
    """How many errors are made of a request."""
    assert MAX_DATAGRAM * 0.9 < len(document) <= MAX_DATAGRAM
    data = document.encode()
    request = Request("check", json.loads(data)["params"], data, Peer(None), 0)
    with pytest.raises(Refusal) as caught:
        read_params(CheckParams, request)
    refused = caught.value
    assert 1 <= len(refused.data["problems"]) <= 65
    assert len(str(refused)) < 600
    return refused.__cause__.error_count() if isinstance(refused.__cause__, ValidationError) else 0


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry[:20])
@pytest.mark.parametrize("wrap", LISTS.values(), ids=LISTS)
def test_a_list_of_wrong_entries(wrap: Wrap, entry: str) -> None:
    room = MAX_DATAGRAM - len(wrap(""))
    # Two at the least, so that each kind is a duplicate too where it is valid.
    assert _errors_of(wrap(",".join([entry] * (room // (len(entry) + 1))))) <= 70


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("wrap", OBJECTS.values(), ids=OBJECTS)
def test_an_object_of_unknown_members(wrap: Wrap, member: str) -> None:
    room = MAX_DATAGRAM - len(wrap(""))
    assert _errors_of(wrap(",".join(_as_fit(member, room)))) <= _MAX_ERRORS


def _as_fit(member: str, room: int) -> Iterator[str]:
    number = 0
    while (room := room - len(text := member % number) - 1) >= 0:
        yield text
        number += 1


def test_too_many_names_are_one_problem_of_the_request() -> None:
    data: dict[str, Any] = {"params": {"state": {f"n{n}": 0 for n in range(2000)}}}
    request = Request("check", data["params"], json.dumps(data).encode(), Peer(None), 0)
    with pytest.raises(Refusal, match="names in it") as caught:
        read_params(CheckParams, request)
    (problem,) = caught.value.data["problems"]
    assert (problem["path"], problem["code"]) == ("", "too-many-names")
