"""Fixtures: whether testpmd can run here."""

import shutil

import pytest

from tests.availability import skip_or_fail
from tests.dpdk.testpmd import PROGRAM


@pytest.fixture(scope="session", autouse=True)
def _testpmd_can_run() -> None:
    reason = None if shutil.which(PROGRAM) else f"no {PROGRAM} (Debian: dpdk-dev)"
    skip_or_fail(reason)
