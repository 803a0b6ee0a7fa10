"""A back end on the software device, of which nothing may be left."""

from collections.abc import AsyncIterator

import pytest

from tests.backend.vmm import BackEnd, Heard, back_end
from tests.support.descriptors import no_descriptor_left
from tests.vhost_user.conftest import mappings


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
