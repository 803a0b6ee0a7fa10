"""What is no request, or not one that can be understood, and what is said of it."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.support import (
    HASH_REPORT,
    MAX_DATAGRAM,
    STATE,
    Caller,
    Json,
    is_error,
    is_operation,
    request,
    serving,
    software,
    until_state,
    vlans,
)
from vdpad.daemon.operations.operations import Operations


async def refused(caller: Caller, datagram: bytes) -> Json:
    await caller.send(datagram)
    reply = await caller.receive()
    assert "error" in reply, reply
    return reply


def info(**changes: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "info", **changes}).encode()


def check(state: object, target: object = None) -> dict[str, Any]:
    return {"state": state, "target": software() if target is None else target}


# --- parse-error ---


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b" ",
        b"{",
        b"nul",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + info(),
        info().decode().encode("utf-16"),
        info() + b"x",
        info() + info(),
        info()[:-1],
        info().replace(b'"', b"'"),
        b'{"jsonrpc":"2.0","id":1,"method":"info",}',
        b'{"jsonrpc":"2.0","id":1,"id":1,"method":"info"}',
        b'{"jsonrpc":"2.0","id":1,"method":"info","params":{"x":{"y":1,"y":1}}}',
        b'{"jsonrpc":"2.0","id":NaN,"method":"info"}',
        b'{"jsonrpc":"2.0","id":1,"method":"info","params":{"x":[Infinity]}}',
        b'{"jsonrpc":"2.0","id":1,"method":"info","params":{"x":-Infinity}}',
        b'{"jsonrpc":"2.0","id":"\xed\xa0\x80","method":"info"}',
        b'{"jsonrpc":"2.0","id":"\n","method":"info"}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"info"}',
        b'{"jsonrpc":"2.0","id":1,"method":"info","params":{"x":-' + b"9" * 5000 + b"}}",
        b"[" * MAX_DATAGRAM,
        b"[" * 50_000 + b"]" * 50_000,
        b'{"x":' * 30_000 + b"1" + b"}" * 30_000,
    ],
    ids=lambda datagram: f"{len(datagram)}B {datagram[:40]!r}",
)
async def test_what_is_not_json_is_a_parse_error_with_a_null_id(
    caller: Caller, datagram: bytes
) -> None:
    reply = await refused(caller, datagram)
    assert reply["id"] is None
    assert is_error(reply["error"], "parse-error")
    await caller.result("info")


# --- invalid-request ---


@pytest.mark.parametrize(
    "message",
    [
        [],
        [json.loads(info())],
        [json.loads(info())] * 2,
        None,
        True,
        7,
        "info",
        {"jsonrpc": "2.0", "id": True, "method": "info"},
        {"jsonrpc": "2.0", "id": 1.5, "method": "info"},
        {"jsonrpc": "2.0", "id": [1], "method": "info"},
        {"jsonrpc": "2.0", "id": {}, "method": "info"},
        {"jsonrpc": "2.0", "id": "x" * 257, "method": "info"},
        {"jsonrpc": "2.0", "id": "x" * 100_000, "method": "info"},
        {"jsonrpc": "2.0", "id": 10**4000, "method": "info"},
    ],
    ids=lambda message: str(message)[:60],
)
async def test_a_message_without_a_usable_id_is_refused_with_a_null_id(
    caller: Caller, message: object
) -> None:
    reply = await refused(caller, json.dumps(message).encode())
    assert reply["id"] is None
    assert is_error(reply["error"], "invalid-request")


@pytest.mark.parametrize(
    "change",
    [
        {"jsonrpc": None},
        {"jsonrpc": "1.0"},
        {"jsonrpc": 2.0},
        {"jsonrpc": "2.0 "},
        {"method": None},
        {"method": 1},
        {"method": ["info"]},
        {"params": []},
        {"params": [1, 2]},
        {"params": None},
        {"params": "x"},
        {"result": {}},
        {"error": None},
        {"unknown": 1},
    ],
    ids=str,
)
async def test_a_wrong_envelope_is_refused_with_its_id(caller: Caller, change: Json) -> None:
    reply = await refused(caller, info(id=7, **change))
    assert reply["id"] == 7
    assert is_error(reply["error"], "invalid-request")


@pytest.mark.parametrize("key", ["jsonrpc", "method"])
async def test_an_envelope_without_its_keys_is_refused(caller: Caller, key: str) -> None:
    message = json.loads(info(id=7))
    del message[key]
    reply = await refused(caller, json.dumps(message).encode())
    assert reply["id"] == 7
    assert is_error(reply["error"], "invalid-request")


@pytest.mark.parametrize("size", [MAX_DATAGRAM + 1, 300 * 1024])
async def test_a_datagram_past_the_limit_is_refused_whatever_it_holds(
    caller: Caller, size: int
) -> None:
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
    reply = await refused(caller, info().ljust(size))
    assert reply["id"] is None
    assert is_error(reply["error"], "invalid-request")
    assert str(MAX_DATAGRAM) in reply["error"]["message"]


async def test_a_datagram_of_exactly_the_limit_is_taken(caller: Caller) -> None:
    await caller.send(info().ljust(MAX_DATAGRAM))
    assert "result" in await caller.receive()


@pytest.mark.parametrize(
    "request_id", [0, -1, 2**53 + 1, -(2**62), "", "x" * 256, "\ud800", "\0 é\n", None], ids=ascii
)
async def test_an_id_comes_back_as_it_was_sent(caller: Caller, request_id: object) -> None:
    await caller.send(info(id=request_id))
    reply = await caller.receive()
    assert "result" in reply
    assert (type(reply["id"]), reply["id"]) == (type(request_id), request_id)


# --- method-not-found ---


@pytest.mark.parametrize("method", ["nothing", "", "Info", "info ", "\ud800", "x" * 9999])
async def test_a_method_that_is_not_served_is_not_found(caller: Caller, method: str) -> None:
    error = await caller.error(method)
    assert is_error(error, "method-not-found")
    assert (
        "info, devices, check, prepare, commit, restore, status, cancel, release"
        in error["message"]
    )


# --- invalid-params ---


BAD_STATES: list[tuple[Json, str, str]] = [
    ({"version": True}, "state.version", "int-type"),
    ({"version": 1.0}, "state.version", "int-type"),
    ({"version": 2}, "state.version", "less-than-equal"),
    ({"features": "MAC"}, "state.features", "list"),
    ({"features": [*STATE["features"], "NOPE"]}, "state.features.16", "unknown-name"),
    ({"features": [*STATE["features"], "bit_18"]}, "state.features.16", "duplicate"),
    ({"features": [*STATE["features"], "bit_128"]}, "state.features.16", "unknown-name"),
    ({"mac": "52:54:00:12:34"}, "state.mac", "mac"),
    ({"mac": None}, "state.mac", "mac"),
    ({"mac": "01:00:5e:00:00:01"}, "state.mac", "not-unicast"),
    ({"rx": {"promisc": 1}}, "state.rx.promisc", "bool-type"),
    ({"rx": {"promiscuous": True}}, "state.rx.promiscuous", "unknown-key"),
    ({"mac_table": {"unicast": ["01:00:5e:00:00:01"]}}, "state.mac_table.unicast.0", "wrong-table"),
    ({"mac_table": {"multicast": ["01:00:5e:00:00:01"] * 2}}, "state.mac_table.multicast.1", ""),
    ({"vlans": [1, 4096]}, "state.vlans.1", "vlan"),
    ({"vlans": [1, True]}, "state.vlans.1", "vlan"),
    ({"vlans": [[5, 3]]}, "state.vlans.0", "vlan"),
    ({"vlans": [[1, 9], 5]}, "state.vlans.1", "duplicate"),
    ({"queue_pairs": 0}, "state.queue_pairs", "greater-than-equal"),
    ({"rss": {**STATE["rss"], "key": "6d5"}}, "state.rss.key", "key"),
    (
        {"rss": {**STATE["rss"], "indirection_table": [0, 1, 2]}},
        "state.rss.indirection_table",
        "not-a-power-of-two",
    ),
    ({"rss": {**STATE["rss"], "max_tx_queues": 3}}, "state.rss.max_tx_queues", "conflict"),
    ({"hash_report": HASH_REPORT["hash_report"]}, "state.hash_report", "conflict"),
    ({"guest_offloads": ["GUEST_TSO6"]}, "state.guest_offloads", "needs-feature"),
    ({"coalescing": {"queues": {"00": {}}}}, "", ""),
    ({"unknown": 1}, "state.unknown", "unknown-key"),
]


@pytest.mark.parametrize(("change", "place", "code"), BAD_STATES, ids=lambda each: str(each)[:60])
@pytest.mark.parametrize("method", ["check", "prepare", "restore"])
async def test_what_is_wrong_with_a_state_is_told_by_its_path(
    caller: Caller, method: str, change: Json, place: str, code: str
) -> None:
    named = {} if method == "check" else {"migration": "vm-1"}
    error = await caller.error(method, **named, **check({**STATE, **change}))
    assert is_error(error, "invalid-params", "problems")
    (*_, problem) = error["data"]["problems"]
    assert problem.keys() == {"path", "code", "message"}
    assert problem["path"] == place or not place
    assert problem["code"] == code or not code
    assert await caller.listed() == []


@pytest.mark.parametrize(
    ("target", "paths"),
    [
        (5, ["target"]),
        ({}, ["target.kind"]),
        ({"kind": "vdpa"}, ["target.kind"]),
        ({"kind": ["software"]}, ["target.kind"]),
        ({"kind": "software"}, ["target.name"]),
        ({"kind": "software", "name": ""}, ["target.name"]),
        ({"kind": "software", "name": 1, "device": "x"}, ["target.name", "target.device"]),
        ({"kind": "vhost-vdpa"}, ["target"]),
        ({"kind": "vhost-vdpa", "device": "a", "path": "/b"}, ["target"]),
        ({"kind": "lent"}, ["target.features", "target.ring"]),
    ],
    ids=str,
)
async def test_what_is_wrong_with_a_target_is_told_by_its_path(
    caller: Caller, target: object, paths: list[str]
) -> None:
    error = await caller.error("check", **check(vlans(1), target))
    assert is_error(error, "invalid-params", "problems")
    assert {problem["path"] for problem in error["data"]["problems"]} == set(paths)


@pytest.mark.parametrize(
    ("features", "missing"),
    [
        (["CTRL_VQ", "MQ"], ["max_virtqueue_pairs"]),
        (
            ["CTRL_VQ", "RSS"],
            [
                "max_virtqueue_pairs",
                "rss_max_indirection_table_length",
                "rss_max_key_size",
                "supported_hash_types",
            ],
        ),
        (["CTRL_VQ", "HASH_REPORT"], ["rss_max_key_size", "supported_hash_types"]),
    ],
    ids=str,
)
async def test_config_that_the_features_need_must_be_given(
    caller: Caller, features: list[str], missing: list[str]
) -> None:
    memory = {"iova": 0, "size": 65536}
    ring = {"size": 4, "memory": memory, "descriptors": 0, "available": 64, "used": 128}
    whole = {**ring, "buffers": {"iova": 256, "size": 4096}}
    target = {"kind": "lent", "features": features, "ring": whole}
    error = await caller.error("check", **check(vlans(), target))
    assert is_error(error, "invalid-params", "problems")
    paths = sorted(problem["path"] for problem in error["data"]["problems"])
    assert paths == [f"target.config.{key}" for key in missing]


async def test_all_that_is_wrong_is_told_at_once(caller: Caller) -> None:
    error = await caller.error(
        "restore",
        migration="no spaces",
        deadline_ms=0,
        state={"version": 3, "features": ["X"], "mac": 1, "rx": {"a": 1, "promisc": "on"}},
        target={"kind": "lent", "features": [1], "ring": {"size": "64"}, "x": 1},
        unknown=1,
    )
    assert is_error(error, "invalid-params", "problems")
    assert {problem["path"] for problem in error["data"]["problems"]} >= {
        "migration",
        "deadline_ms",
        "state.version",
        "state.features.0",
        "state.mac",
        "state.rx.a",
        "state.rx.promisc",
        "target.features.0",
        "target.ring.size",
        "target.ring.memory",
        "target.x",
        "unknown",
    }


async def test_problems_are_bounded_and_the_last_says_how_many_are_missing(caller: Caller) -> None:
    await caller.send(request("info", 1, **{f"key{number}": 0 for number in range(1000)}))
    error = (await caller.receive())["error"]
    assert is_error(error, "invalid-params", "problems")
    problems = error["data"]["problems"]
    assert len(problems) == 65
    assert problems[-1]["message"] == "936 more problems are not shown"


async def test_a_key_that_the_sender_made_up_fills_no_reply(caller: Caller) -> None:
    await caller.send(request("info", 1, **{"\x1b[31m\n" + "x" * 100_000: 0}))
    reply = await caller.receive()
    assert is_error(reply["error"], "invalid-params", "problems")
    assert len(json.dumps(reply)) < 2000
    assert reply["error"]["message"].isprintable()


async def test_a_number_that_the_sender_made_up_fills_no_reply(caller: Caller) -> None:
    whole = {"size": 10**4000, "memory": {"iova": 0, "size": 1}, "descriptors": 0, "available": 0}
    ring = {**whole, "used": 0, "buffers": {"iova": 0, "size": 1}}
    target = {"kind": "lent", "features": [], "ring": ring}
    reply = await caller.call("check", **check(vlans(), target))
    assert "error" in reply
    assert len(json.dumps(reply)) < 2000


@pytest.mark.parametrize("migration", ["", "a" * 129, "vm 1", "vm\n", "vm-1\n", "é", 1, None, "\0"])
@pytest.mark.parametrize("method", ["commit", "status", "cancel"])
async def test_a_migration_that_is_no_name_is_refused(
    caller: Caller, method: str, migration: object
) -> None:
    error = await caller.error(method, migration=migration)
    assert is_error(error, "invalid-params", "problems")
    assert [problem["path"] for problem in error["data"]["problems"]] == ["migration"]


@pytest.mark.parametrize("migration", ["a", "a" * 128, "AZaz09._:/-"])
async def test_a_migration_of_any_allowed_characters_is_taken(
    caller: Caller, migration: str
) -> None:
    params = {"migration": migration, **check(vlans(1))}
    assert (await caller.result("prepare", **params))["migration"] == migration


@pytest.mark.parametrize("deadline", [0, -1, 600_001, 1.5, "100", True, None, 10**100])
@pytest.mark.parametrize("method", ["prepare", "commit", "restore"])
async def test_a_deadline_out_of_range_is_refused(
    caller: Caller, method: str, deadline: object
) -> None:
    known = {} if method == "commit" else check(vlans(1))
    error = await caller.error(method, migration="vm-1", deadline_ms=deadline, **known)
    assert is_error(error, "invalid-params", "problems")
    assert [problem["path"] for problem in error["data"]["problems"]] == ["deadline_ms"]


@pytest.mark.parametrize("method", ["check", "prepare", "commit", "restore", "cancel"])
async def test_params_that_are_left_out_are_missing(caller: Caller, method: str) -> None:
    await caller.send(info(method=method))
    error = (await caller.receive())["error"]
    assert is_error(error, "invalid-params", "problems")
    assert {problem["code"] for problem in error["data"]["problems"]} == {"missing"}


@pytest.mark.parametrize("method", ["info", "status"])
async def test_params_may_be_left_out_where_none_is_required(caller: Caller, method: str) -> None:
    await caller.send(info(method=method))
    assert "result" in await caller.receive()


@pytest.mark.parametrize(
    "params",
    [
        '{"migration":"\\ud800"}',
        '{"\\udfff":1}',
        '{"migration":' + "[" * 900 + "]" * 900 + "}",
        '{"migration":1e999}',
        '{"migration":' + "9" * 4000 + "}",
    ],
    ids=lambda params: params[:30],
)
async def test_json_that_is_hard_to_read_is_refused_like_any_other(
    caller: Caller, params: str
) -> None:
    await caller.send(f'{{"jsonrpc":"2.0","id":1,"method":"status","params":{params}}}'.encode())
    reply = await caller.receive()
    assert reply["id"] == 1
    assert is_error(reply["error"], "invalid-params", "problems")
    assert len(json.dumps(reply)) < 2000


# --- notifications ---


async def test_a_notification_acts_and_is_not_answered(caller: Caller, tmp_path: Path) -> None:
    await caller.send(request("restore", migration="vm-1", **check(vlans(7))))
    await until_state(caller, "vm-1", "restored")
    assert json.loads((tmp_path / "sim0.json").read_text())["vlans"] == [7]
    await caller.result("info")
    assert caller.received() is None


@pytest.mark.parametrize(
    "notification",
    [
        request("info"),
        request("nothing"),
        request("release", device="vdpa0"),
        request("info", unknown=1),
        request("commit", migration="vm-1"),
        request("status", migration="vm-1"),
        request("check", **check(STATE, software("none"))),
    ],
)
async def test_a_notification_that_fails_is_not_answered_either(
    caller: Caller, notification: bytes
) -> None:
    await caller.send(notification)
    await caller.result("info")
    assert caller.received() is None


# --- internal ---


async def test_a_fault_of_the_daemons_own_is_internal_and_tells_nothing_of_itself(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Operations) -> None:
        raise RuntimeError("a secret of the daemon's")

    monkeypatch.setattr(Operations, "newest_first", broken)
    reply = await caller.call("status")
    assert is_error(reply["error"], "internal")
    whole = json.dumps(reply)
    assert not any(word in whole for word in ("secret", "Traceback", "RuntimeError", ".py"))
    await caller.result("info")


async def test_a_fault_in_a_commit_fails_the_operation_and_frees_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the daemon's")

    async with serving(tmp_path) as path:
        with Caller(path) as caller:
            with monkeypatch.context() as patched:
                patched.setattr("vdpad.daemon.operations.commits.replay", broken)
                error = await caller.error("restore", migration="vm-1", **check(vlans(1)))
            assert is_error(error, "internal")
            assert "secret" not in json.dumps(error)
            assert is_operation(await caller.result("status", migration="vm-1"), "failed")
            assert is_error(await caller.error("commit", migration="vm-1"), "internal")
            report = await caller.result("restore", migration="vm-2", **check(vlans(1)))
            assert report["outcome"] == "restored"


# --- no-such-device, no-such-migration ---


@pytest.mark.parametrize(
    "target",
    [
        software("sim1"),
        {"kind": "vhost-vdpa", "device": "vdpa0"},
        {"kind": "vhost-vdpa", "path": "/dev/vhost-vdpa-0"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["check", "prepare", "restore"])
async def test_a_device_that_is_not_there_is_no_such_device(
    caller: Caller, method: str, target: Json
) -> None:
    named = {} if method == "check" else {"migration": "vm-1"}
    assert is_error(
        await caller.error(method, **named, **check(vlans(1), target)), "no-such-device"
    )
    assert await caller.listed() == []


@pytest.mark.parametrize("method", ["commit", "status", "cancel"])
async def test_a_migration_that_nobody_prepared_is_no_such_migration(
    caller: Caller, method: str
) -> None:
    assert is_error(await caller.error(method, migration="vm-1"), "no-such-migration")
