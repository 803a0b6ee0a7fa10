"""A kernel with vdpa that stands in for the process that asks it, and keeps what it has in a file.

It goes by Linux drivers/vdpa/vdpa.c: what is looked at in which order, and the errors with their
words. `python -S vdpa_kernel.py FILE` is the process; Host is the file as tests see it. Each thing
asked begins a process, and most of what that costs is to import: it imports little.
"""

import errno
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]

_MAC, _MQ, _MTU, _RSS, _STATUS = 5, 22, 3, 60, 16
_NETWORK = 1
_CONFIG = ("DEV_NET_CFG_MACADDR", "DEV_NET_CFG_MAX_VQP", "DEV_NET_CFG_MTU")


class Host:
    """The file, and the command that starts the process on it."""

    def __init__(self, path: "Path | str") -> None:
        self.path = path

    @classmethod
    def with_simulator(cls, path: "Path", *, capable: bool = True) -> "Host":
        """One with vdpa_sim_net as Linux 6.12 has it and a card that takes its features alone."""
        host = cls(path)
        host.write(
            {
                "capable": capable,
                "makers": [
                    {
                        "bus": None,
                        "name": "vdpasim_net",
                        "classes": 1 << _NETWORK,
                        "max_vqs": 3,
                        "features": 0x308830028,
                        "takes": ["DEV_NET_CFG_MACADDR", "DEV_NET_CFG_MTU"],
                        "mac": "00:00:00:00:00:00",
                        "pairs": 1,
                    },
                    {
                        "bus": "pci",
                        "name": "0000:00:03.0",
                        "classes": 1 << _NETWORK,
                        "max_vqs": 9,
                        "features": 0x300020020 | 1 << _MQ | 1 << 17,
                        "takes": [],
                        "mac": "52:54:00:00:00:0a",
                        "pairs": 4,
                    },
                ],
                "devices": {},
                "asked": [],
            }
        )
        return host

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-S", __file__, str(self.path))

    def read(self) -> Json:
        with open(self.path) as file:
            found: Json = json.load(file)
        return found

    def write(self, held: Json) -> None:
        with open(self.path, "w") as file:
            file.write(json.dumps(held))

    def asked(self, command: str) -> list[Json]:
        """The attributes of each request of this kind, in their order."""
        return [attributes for asked, attributes in self.read()["asked"] if asked == command]


class _Refused(Exception):
    def __init__(self, code: int, words: str) -> None:
        self.answer = {"errno": code, "words": words}


def _answer(held: Json, command: str, attributes: Json) -> list[Json]:
    match command:
        case "MGMTDEV_GET":
            return [_told_maker(each) for each in held["makers"]]
        case "DEV_GET" if not attributes:
            return [_told(held, name) for name in held["devices"]]
        case "DEV_GET":
            return [_told(held, _there(held, attributes))]
        case "DEV_CONFIG_GET":
            return [_told_config(held, _there(held, attributes))]
        case "DEV_NEW":
            _make(held, attributes)
        case "DEV_DEL":
            if not held["capable"]:
                raise _Refused(errno.EPERM, "Operation not permitted")
            del held["devices"][_there(held, attributes)]
    return []


def _make(held: Json, attributes: Json) -> None:
    _look_at_the_features(attributes)
    if not held["capable"]:
        raise _Refused(errno.EPERM, "Operation not permitted")
    where = (attributes.get("MGMTDEV_BUS_NAME"), attributes["MGMTDEV_DEV_NAME"])
    for maker in held["makers"]:
        if (maker["bus"], maker["name"]) == where:
            break
    else:
        raise _Refused(errno.ENODEV, "vdpa: Fail to find the specified management device")
    if {*_CONFIG} & {*attributes} - {*maker["takes"]}:
        raise _Refused(errno.EOPNOTSUPP, "vdpa: Some provided attributes are not supported: 0x400")
    if "refuses" in maker:
        raise _Refused(errno.ENOSPC, maker["refuses"])
    if attributes["DEV_FEATURES"] & ~maker["features"]:
        raise _Refused(errno.EINVAL, "Invalid argument")
    if attributes["DEV_NAME"] in held["devices"]:
        raise _Refused(errno.EEXIST, "File exists")
    held["devices"][attributes["DEV_NAME"]] = {
        "maker": [maker["bus"], maker["name"]],
        "features": attributes["DEV_FEATURES"],
        "mac": attributes.get("DEV_NET_CFG_MACADDR", maker["mac"]),
        "mtu": attributes.get("DEV_NET_CFG_MTU", 1500),
        "pairs": attributes.get("DEV_NET_CFG_MAX_VQP", maker["pairs"]),
    }


def _look_at_the_features(attributes: Json) -> None:
    wanted = [("DEV_NET_CFG_MACADDR", _MAC), ("DEV_NET_CFG_MTU", _MTU)]
    if attributes.get("DEV_NET_CFG_MAX_VQP", 1) > 1:
        wanted.append(("DEV_NET_CFG_MAX_VQP", _MQ))
    missing = sum(
        1 << bit
        for name, bit in wanted
        if name in attributes and not attributes["DEV_FEATURES"] >> bit & 1
    )
    if missing:
        words = f"vdpa: Missing features 0x{missing:x} for provided attributes"
        raise _Refused(errno.EINVAL, words)


def _there(held: Json, attributes: Json) -> str:
    name: str = attributes["DEV_NAME"]
    if name not in held["devices"]:
        raise _Refused(errno.ENODEV, "vdpa: device not found")
    return name


def _maker_s(bus: str | None, name: str) -> Json:
    return {"MGMTDEV_DEV_NAME": name} | ({} if bus is None else {"MGMTDEV_BUS_NAME": bus})


def _told_maker(maker: Json) -> Json:
    return {
        **_maker_s(maker["bus"], maker["name"]),
        "MGMTDEV_SUPPORTED_CLASSES": maker["classes"],
        "DEV_MGMTDEV_MAX_VQS": maker["max_vqs"],
        "DEV_SUPPORTED_FEATURES": maker["features"],
    }


def _told(held: Json, name: str) -> Json:
    device = held["devices"][name]
    return {
        **_maker_s(*device["maker"]),
        "DEV_NAME": name,
        "DEV_ID": _NETWORK,
        "DEV_VENDOR_ID": 0,
        "DEV_MAX_VQS": 2 * device["pairs"] + 1,
        "DEV_MAX_VQ_SIZE": 256,
        "DEV_MIN_VQ_SIZE": 1,
    }


def _told_config(held: Json, name: str) -> Json:
    device = held["devices"][name]
    features = device["features"]
    told = {
        "DEV_NET_CFG_MACADDR": (device["mac"], 1 << _MAC),
        "DEV_NET_STATUS": (1, 1 << _STATUS),
        "DEV_NET_CFG_MAX_VQP": (device["pairs"], 1 << _MQ | 1 << _RSS),
        "DEV_NET_CFG_MTU": (device["mtu"], 1 << _MTU),
    }
    return {
        "DEV_NAME": name,
        "DEV_ID": _NETWORK,
        "DEV_FEATURES": features,
        **{name: value for name, (value, mask) in told.items() if features & mask},
    }


def main(path: str) -> None:
    print("ready", flush=True)
    host = Host(path)
    for line in sys.stdin:
        command, attributes = json.loads(line)
        held = host.read()
        held["asked"].append([command, attributes])
        try:
            replies = _answer(held, command, attributes)
            answer: Json = {"replies": [list(each.items()) for each in replies]}
        except _Refused as error:
            answer = error.answer
        host.write(held)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
