"""How hypothesis works here: no test fails for being slow."""

from hypothesis import HealthCheck, settings


def load() -> None:
    """Makes it so for all tests that are collected from now on."""
    settings.register_profile(
        "vdpad",
        parent=settings.default,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("vdpad")
