"""Runs a harness: `python -m tests.fuzz.run HARNESS [LIBFUZZER'S OPTIONS]`.

What it finds of interest goes to build/fuzz/HARNESS, and is where the next run goes on. To keep
what reaches new code: `-merge=1 tests/fuzz/corpus/HARNESS build/fuzz/HARNESS`.
"""

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE / "corpus"
FOUND = HERE.parent.parent / "build" / "fuzz"


def main(harness: str, *options: str) -> None:
    """Fuzzes until the options end it, or something is wrong."""
    import atheris  # it has wheels for x86_64 alone

    with atheris.instrument_imports(include=["vdpad"]):
        one = import_module(f"tests.fuzz.{harness}").one
    found, kept = FOUND / harness, KEPT / harness
    found.mkdir(parents=True, exist_ok=True)
    folders = [] if any(each.startswith("-merge") for each in options) else [found, kept]
    # Whoever waits longer than this for one input waits for ever.
    settings = ["-timeout=60", "-rss_limit_mb=1024", f"-artifact_prefix={FOUND}/{harness}-"]
    atheris.Setup([sys.argv[0], *settings, *options, *map(str, folders)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
