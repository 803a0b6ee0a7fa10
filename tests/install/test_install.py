"""What `make install` lays out, and that it runs from there."""

from __future__ import annotations

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

from tests.support.waiting import GUARD

from .install import ROOT, install

PROGRAMS = ("vdpad", "vdpactl", "vdpad-vhost-user")


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """A program with nothing of ours in its environment, away from the repository."""
    return subprocess.run(
        argv,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )


def pinned(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / lock).read_text(), re.M))


def test_what_is_installed_is_what_was_tested() -> None:
    run_lock = pinned("requirements-run.lock")
    assert run_lock <= pinned("requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # PyPI takes a dot for a hyphen, and a lock has the hyphen.
    extras = project["optional-dependencies"].values()
    listed = chain(project["dependencies"], *extras)
    wanted = {re.split(r"[<>=]", each)[0].replace(".", "-") for each in listed}
    assert wanted <= {each.split("==")[0] for each in run_lock}, "make lock"


def test_what_lies_where(installed: Path) -> None:
    expected = {
        "etc/vdpad/vdpad.toml",
        "usr/bin/vdpad",
        "usr/bin/vdpactl",
        "usr/bin/vdpad-vhost-user",
        "usr/lib/systemd/system/vdpad.service",
        "usr/lib/systemd/system/vdpad.socket",
        "usr/lib/systemd/system/vdpad-varlink.socket",
        "usr/lib/systemd/system/vdpad-vhost-user@.service",
        "usr/lib/systemd/system/vdpad-vhost-user@.socket",
        "usr/lib/sysusers.d/vdpad.conf",
        "usr/lib/tmpfiles.d/vdpad.conf",
        "usr/lib/vdpad/systemd/vhost-vdpa.conf",
        "usr/lib/vdpad/systemd/udp.conf",
        "usr/lib/vdpad/systemd/90-vdpad-vhost-vdpa.rules",
        "usr/lib/vdpad/systemd/vdpad-metrics.conf",
        "usr/lib/vdpad/systemd/vdpad-vhost-user-tap.conf",
        "usr/lib/systemd/catalog/vdpad.catalog",
        "usr/share/man/man1/vdpactl.1",
        "usr/share/man/man5/vdpad.toml.5",
        "usr/share/man/man8/vdpad.8",
        "usr/share/man/man8/vdpad-vhost-user.8",
        "usr/include/vdpad-lend.h",
        *(f"usr/share/bash-completion/completions/{each}" for each in PROGRAMS),
        *(f"usr/share/zsh/vendor-completions/_{each}" for each in PROGRAMS),
        *(f"usr/share/fish/vendor_completions.d/{each}.fish" for each in PROGRAMS),
        "usr/share/qemu/vhost-user/50-vdpad-vhost-user.json",
        "usr/share/vdpad/monitoring/vdpad.rules.yml",
        "usr/share/vdpad/monitoring/vdpad.dashboard.json",
        "usr/share/doc/vdpad/api.md",
        "usr/share/doc/vdpad/io.vdpad.Daemon.varlink",
        "usr/share/doc/vdpad/io.vdpad.BackEnd.varlink",
        "usr/share/doc/vdpad/examples/lender.py",
        "usr/share/doc/vdpad/recipes/README.md",
        "usr/share/doc/vdpad/recipes/libvirt/qemu-hook.bash",
    }
    found = {str(each.relative_to(installed)) for each in installed.rglob("*") if each.is_file()}
    assert expected <= found
    # Nothing outside of the folders that a package of this name has.
    ours = ("usr/lib/vdpad/", "usr/share/doc/vdpad/")
    assert {each for each in found - expected if not each.startswith(ours)} == set()
    assert (installed / "etc/vdpad/conf.d").is_dir()


def test_pages_lead_to_what_lies_there(installed: Path) -> None:
    pages = sorted((installed / "usr/share/doc/vdpad").rglob("*.md"))
    assert "README.md" in {each.name for each in pages}
    for page in pages:
        text = page.read_text()
        links = re.findall(r"\]\((?!https://)([^)#]+)", text)
        links += re.findall(r'(?:src|srcset)="([^"]+)"', text)
        assert [each for each in links if not (page.parent / each).exists()] == [], page


def test_a_lender_s_kit_can_be_built_from_there(installed: Path, tmp_path: Path) -> None:
    page = (installed / "usr/share/doc/vdpad/lending.md").read_text()
    (compile_it,) = re.findall(r"^    (gcc .+) -o /tmp/vmm$", page, re.M)
    done = subprocess.run(
        [*compile_it.split(), "-o", tmp_path / "vmm"],
        cwd=installed / "usr/share/doc/vdpad",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_file_knows_where_it_was_laid_out(installed: Path) -> None:
    for each in (
        *installed.glob("usr/bin/*"),
        *installed.rglob("*.pyc"),
        *installed.rglob("*.cfg"),
    ):
        assert str(installed).encode() not in each.read_bytes(), each


def test_everybody_may_read_it_and_nobody_write(installed: Path) -> None:
    for each in installed.rglob("*"):
        if not each.is_symlink():
            assert each.stat().st_mode & 0o777 in (0o644, 0o755), each


def test_the_programs_run_from_there(installed: Path) -> None:
    python = installed / "usr/lib/vdpad/bin/python"
    for program in PROGRAMS:
        done = run(python, "-I", installed / "usr/bin" / program, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{program} ")
    done = run(python, "-Ic", "import vdpad, pydantic; print(vdpad.__file__, pydantic.__file__)")
    assert done.stdout
    assert all(each.startswith(str(installed)) for each in done.stdout.split()), done


def test_another_prefix_and_a_config_that_is_there(tmp_path: Path) -> None:
    """All paths are put right, and the operator's settings are left."""
    prefix, etc = tmp_path / "opt", tmp_path / "etc"
    (etc / "vdpad").mkdir(parents=True)
    (etc / "vdpad/vdpad.toml").write_text("# mine\n")
    install(PREFIX=str(prefix), SYSCONFDIR=str(etc))
    assert (etc / "vdpad/vdpad.toml").read_text() == "# mine\n"
    for program in PROGRAMS:
        assert run(prefix / "bin" / program, "--version").returncode == 0
    python = prefix / "lib/vdpad/bin/python"
    hook = prefix / "share/doc/vdpad/recipes/libvirt/qemu_hook.py"
    assert hook.read_text().startswith(f"#!{python} -I\n")
    assert run(python, "-I", hook).stderr.startswith("expected GUEST ")
    units = prefix / "lib/systemd/system"
    verified = run("systemd-analyze", "verify", "--man=no", *units.iterdir())
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    service = (units / "vdpad.service").read_text()
    assert f"ExecStart={prefix}/bin/vdpad --config {etc}/vdpad/vdpad.toml\n" in service
    assert "/usr/" not in service
