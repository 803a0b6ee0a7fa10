"""What rooms need, and which boot machines: `python -m tests.rooms [PYTEST'S ARGUMENTS]`.

It prints what the tests that these arguments choose need, as targets of the Makefile. pytest itself
says which tests they are, so paths, -k and -m are taken as it takes them.
"""

import contextlib
import io
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

NEEDS = {
    "systemd": ("test-kernel", "test-systemd"),
    "vm": ("test-kernel", "test-vdpa-tool"),
    "guest": ("test-kernel", "test-qemus"),
    "qemu": ("test-qemus",),
    "dpdk": ("test-dpdk",),
    "libvirt": ("test-libvirt",),
    "clients": ("test-clients",),
    "monitoring": ("test-promtool",),
    "kit": ("test-kit",),
    "recipes": ("test-recipes",),
    "install": ("test-install",),
}

# Those that take longest first. Tests in all others start no machine, no QEMU and no testpmd.
MACHINES = ("systemd", "vm", "guest", "qemu", "dpdk", "libvirt")

# In these all tests share what was booted or installed once.
BEGUN_ONCE = ("systemd", "vm", "guest", "libvirt", "install")

# These share the syntax trees of all modules of the package (support/package.py).
PARSED_ONCE = ("test_errors.py", "test_import_directions.py", "test_names.py", "test_public.py")


def room_of(path: Path) -> str:
    """The folder of tests that a file lies in; its own name where it is in none."""
    return path.relative_to(HERE).parts[0]


class _Chosen:
    """A plugin of pytest's that takes down what tests need."""

    def __init__(self) -> None:
        self.needs: set[str] = set()
        self.nowhere: list[str] = []
        """Paths where there is nothing; pytest's processes side by side do not tell of them."""

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        paths = (each.partition("::")[0] for each in session.config.args)
        self.nowhere += [each for each in paths if not Path(each).exists()]

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Whether no test here needs anything; None leaves it to others to say."""
        below = HERE in collection_path.parents
        return True if below and room_of(collection_path) not in NEEDS else None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.needs.update(NEEDS.get(room_of(item.path), ()))


def _main() -> None:
    chosen = _Chosen()
    # What cannot be collected is told by the run that follows.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main([*sys.argv[1:], "--collect-only", "-n0"], plugins=[chosen])
    if chosen.nowhere:
        there = ", ".join(chosen.nowhere)
        sys.exit(f"expected paths of tests, found nothing at {there}: name one in tests/")
    print(*sorted(chosen.needs))


if __name__ == "__main__":
    _main()
