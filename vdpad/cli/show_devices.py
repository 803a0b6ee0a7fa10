"""What vDPA devices are made on, made and removed, as text for people."""

from collections.abc import Sequence

from vdpad.cli import show
from vdpad.cli.layout import sentence, table
from vdpad.cli.show import Json


def management(result: Sequence[Json]) -> str:
    """What devices can be made on, and below each what it supports."""
    if not result:
        return sentence(
            "This host has nothing that vDPA devices can be made on; a driver such as mlx5_vdpa, "
            "or vdpa_sim_net, brings it."
        )
    rows = (
        (
            each["mgmtdev"],
            ", ".join(each["classes"]),
            "?" if each["max_virtqueues"] is None else each["max_virtqueues"],
            ", ".join(each["devices"]) or "none",
        )
        for each in result
    )
    listed = table(rows, "mgmtdev", "classes", "virtqueues", "devices")
    features = (sentence(f"{each['mgmtdev']}: {_features(each['features'])}") for each in result)
    return "\n\n".join([listed, *features])


def _features(names: Sequence[str] | None) -> str:
    return "this kernel does not tell" if names is None else ", ".join(names) or "none"


def provisioned(result: Json) -> str:
    """The device that was made; where none was, the line that makes it, for a shell."""
    device = result["device"]
    if device is None:
        return str(result["command"])
    return f"The device was made, and is as it was wanted.\n\n{show.devices([device])}"


def deprovisioned(result: Json) -> str:
    """What is gone."""
    return f"{result['name']}, of {result['mgmtdev']}, was removed."
