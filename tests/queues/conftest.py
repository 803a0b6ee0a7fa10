"""Time passes only while everybody waits, and generated examples may take theirs."""

from collections.abc import Callable, Mapping

from tests.support import generation
from tests.support.clock import JumpingLoop

generation.load()


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], JumpingLoop]]:
    """The one kind of loop that there is here."""
    return {"jumping": JumpingLoop}
