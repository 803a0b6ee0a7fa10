"""The package's modules as syntax trees, whether or not a test imports them."""

import ast
import gc
from functools import cache
from pathlib import Path

import vdpad

PACKAGE = Path(vdpad.__file__).parent


def module_name(path: Path) -> str:
    """As it is imported: "vdpad.virtio.commands"; a package without `__init__`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def trees() -> dict[str, ast.Module]:
    """The module's tree by each name; whoever only collects tests reads none."""
    parsed = {name: tree_of(path) for name, path in PATHS.items()}
    # They stay, a million objects, and the collector would go through them for all later tests.
    gc.freeze()
    return parsed


def tree_of(path: Path) -> ast.Module:
    """What stands in a file."""
    return ast.parse(path.read_text(), str(path))
