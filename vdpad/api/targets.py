"""A target as requests name it: those kinds that more than one API takes; docs/api.md, "Target"."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from vdpad.api.params import Params
from vdpad.state.problems import invalid

# Linux include/uapi/linux/limits.h, NAME_MAX: the name is a folder's in sysfs.
DeviceName = Annotated[str, Field(min_length=1, max_length=255)]


class SoftwareParams(Params):
    """A software device, by its name."""

    kind: Literal["software"]
    name: Annotated[str, Field(min_length=1, max_length=64)]


class VhostVdpaParams(Params):
    """A vhost-vdpa device, by its vdpa name or its node's path."""

    kind: Literal["vhost-vdpa"]
    device: DeviceName = ""
    path: Annotated[str, Field(min_length=1, max_length=4096)] = ""


def target_of(models: Mapping[str, type[Params]], value: Any) -> Params:
    """The target of a request: by its kind first, so that problems' paths name no other kind.

    Args:
        models: which kinds there are.
        value: of the parameter.

    Raises:
        ValueError: as a validator of pydantic's does.
    """
    if not isinstance(value, dict):
        raise PydanticCustomError("target", "expected an object with a kind")
    kind = value.get("kind")
    model = models.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise invalid((("kind",), "kind", f"expected one of {', '.join(models)}"))
    target = model.model_validate(value)
    if isinstance(target, VhostVdpaParams) and bool(target.device) == bool(target.path):
        raise invalid(((), "device-or-path", "expected either a device or a path"))
    return target
