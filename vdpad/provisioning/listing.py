"""What `vdpactl devices --json` printed on the source, read again: docs/api.md, `devices`."""

from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from vdpad.errors import VdpadError
from vdpad.state.fields import U16, FeatureNames, MacAddress
from vdpad.state.model import QueuePairs
from vdpad.state.problems import Problem, problems_of, summary
from vdpad.state.strict_model import StrictModel
from vdpad.wire.strict_json import Most, NotJson, refuse_more

# A host has some hundreds of devices at the most, of less than 4 KiB each: some 50 values, three
# objects and lists, and ten names.
MAX_SIZE = 4 * 1024 * 1024
_MOST = Most(values=1 << 15, containers=1 << 11, names=1 << 13)

_SPACE = b" \t\r\n"


class ListedConfig(StrictModel):
    """What the kernel told of a network device's config space; None where it has no such field."""

    mac: MacAddress | None = None
    status: U16 | None = None
    max_virtqueue_pairs: QueuePairs | None = None
    mtu: U16 | None = None


class ListedDevice(StrictModel):
    """A device of the source; what tells where it was there may be left out."""

    name: str = ""
    mgmtdev: str = ""
    driver: str | None = None
    node: str | None = None
    features: FeatureNames
    """All that it offers."""
    config: ListedConfig | None
    """None where it is no network device."""


_LISTING = TypeAdapter(Annotated[tuple[ListedDevice, ...], Field(strict=False)])


class BadListing(VdpadError):
    """What is no list of devices: all reasons why not."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(
            f"no list of devices as `vdpactl devices --json` prints: {summary(problems)}"
        )
        self.problems = problems


def is_listing(head: bytes) -> bool:
    """Whether what begins so can be a listing; no format of a state begins with a list."""
    return head.lstrip(_SPACE).startswith(b"[")


def read_listing(data: bytes) -> tuple[ListedDevice, ...]:
    """The network devices of a listing, in its order.

    Raises:
        BadListing: it is none, or longer than MAX_SIZE, or holds more than any.
    """
    if len(data) > MAX_SIZE:
        raise BadListing([Problem("", "too-long", f"more than {MAX_SIZE} bytes")])
    try:
        refuse_more(data, _MOST)
        devices = _LISTING.validate_json(data)
    except NotJson as error:
        raise BadListing([Problem("", "too-long", str(error))]) from error
    except ValidationError as error:
        raise BadListing(problems_of(error)) from error
    return tuple(each for each in devices if each.config is not None)
