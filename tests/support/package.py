"""The package's modules as syntax trees, whether or not a test imports them."""

import ast
from pathlib import Path

import vdpad

PACKAGE = Path(vdpad.__file__).parent


def module_name(path: Path) -> str:
    """As it is imported: "vdpad.virtio.commands"; a package without `__init__`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}

TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in PATHS.items()}
