"""What is compiled here, and how strictly."""

from pathlib import Path

from tests.clients.programs import installed, run

ROOT = Path(__file__).parents[2]
RUST = ROOT / "kit" / "rust"
CRATE = RUST / "src" / "lib.rs"
C = ROOT / "kit" / "c"
STRICT_C = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", f"-I{C}")
STRICT_RUST = ("--edition=2021", "-Dwarnings")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled_c(program: Path, *sources: Path, more: tuple[str, ...] = ()) -> Path:
    """A C program, once it is built."""
    done = run(installed("gcc"), *STRICT_C, *more, *sources, "-o", program, "-pthread")
    assert (done.returncode, done.stderr) == (0, "")
    return program


def _library_of_rust(folder: Path) -> Path:
    """The crate, once it is built; without cargo, which it has no need of."""
    return _compiled_rust(CRATE, folder / "libvdpad_lend.rlib", "--crate-type=lib")


def compiled_rust(program: Path, source: Path) -> Path:
    """A program that uses the crate, once it is built."""
    library = _library_of_rust(program.parent)
    return _compiled_rust(source, program, f"--extern=vdpad_lend={library}")


def compiled_rust_tests(folder: Path) -> Path:
    """The crate's own tests, as a program."""
    return _compiled_rust(CRATE, folder / "tests", "--test")


def _compiled_rust(source: Path, output: Path, *more: str) -> Path:
    name = "--crate-name=vdpad_lend" if source == CRATE else "--crate-name=program"
    done = run(installed("rustc"), *STRICT_RUST, name, *more, source, "-o", output)
    assert (done.returncode, done.stderr) == (0, "")
    return output
