"""What a test does on a machine that can't run it; and in CI, where there is none."""

from __future__ import annotations

import os

import pytest


def skip_or_fail(reason: str | None) -> None:
    """Skip the test for this reason, if there is one; with CI=true, where none may, fail it."""
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (and with CI=true nothing is skipped)", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails a CI run in which anything was skipped, whatever the reason."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI") != "true":
        return
    if reporter.stats.get("skipped") and exitstatus == pytest.ExitCode.OK:
        reporter.write_line("CI=true: nothing may be skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
