"""A back end on the software device, of which nothing may be left."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.backend.vmm import BackEnd, Heard, back_end
from tests.support.descriptors import no_descriptor_left
from tests.vhost_user.conftest import mappings
from tests.vhost_user.log_file import log_file


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def on(heard: Heard) -> AsyncIterator[BackEnd]:
    before = mappings()
    with no_descriptor_left():
        async with back_end(heard=heard) as on:
            yield on
    assert mappings() == before


@pytest.fixture
def log() -> Iterator[int]:
    """Of all of the guest's memory."""
    with log_file(1 << 31 >> 15) as fd:
        yield fd
