"""Time passes only while everybody waits."""

from collections.abc import Callable, Mapping

from tests.support.clock import JumpingLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], JumpingLoop]]:
    """The one kind of loop that there is here."""
    return {"jumping": JumpingLoop}
