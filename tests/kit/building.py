"""What is compiled here, and how strictly."""

from pathlib import Path

from tests.clients.programs import installed, run

ROOT = Path(__file__).parents[2]
C = ROOT / "kit" / "c"
STRICT_C = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", f"-I{C}")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled_c(program: Path, *sources: Path, more: tuple[str, ...] = ()) -> Path:
    """A C program, once it is built."""
    done = run(installed("gcc"), *STRICT_C, *more, *sources, "-o", program, "-pthread")
    assert (done.returncode, done.stderr) == (0, "")
    return program
