"""The Debian packages: what is in them, and what installing and removing them does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.availability import skip_or_fail

from .debian_root import DebianRoot, debian_root, why_unavailable
from .packages import DPKG, NAMES, UNTRIGGERED, newer

CONFIG = "/etc/vdpad/vdpad.toml"
SITE = "usr/lib/vdpad/lib/python*/site-packages"

# Of dpkg, of those whose triggers and databases a package's files are for, and of the user vdpad,
# who stays as files may be his.
OTHERS = (
    "/var/lib/dpkg/",
    "/var/log/",
    "/var/cache/",
    "/var/lib/systemd/catalog/",
    "/etc/.pwd.lock",
    *(f"/etc/{each}" for each in ("passwd", "group", "shadow", "gshadow")),
)


def contents(package: Path) -> dict[str, str]:
    """Its files and their modes, as `ls -l` has them."""
    listed = subprocess.run(
        ("dpkg-deb", "-c", package), capture_output=True, text=True, check=True
    ).stdout
    lines = (line.split(None, 5) for line in listed.splitlines())
    named = {fields[5].split(" -> ")[0].removeprefix("./"): fields for fields in lines}
    assert {fields[1] for fields in named.values()} == {"root/root"}
    return {name: fields[0] for name, fields in named.items() if fields[0][0] != "d"}


def field(package: Path, name: str) -> str:
    """A field of its control file."""
    return subprocess.run(
        ("dpkg-deb", "-f", package, name), capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_packages_have_all_that_is_installed_once(packages: Path, installed: Path) -> None:
    expected = {
        str(each.relative_to(installed))
        for each in installed.rglob("*")
        if each.is_symlink() or each.is_file()
    } - {"usr/share/doc/vdpad/LICENSE"}
    found = [name for each in NAMES for name in contents(packages / f"{each}.deb")]
    assert len(found) == len(set(found))
    own = {name for name in found if "lintian/overrides" in name} | {
        f"usr/share/doc/{each}/{name}"
        for each in NAMES
        for name in ("changelog.gz", "changelog.Debian.gz", "copyright")
    }
    # Manual pages are compressed, and Debian 12's units lie in /lib.
    as_laid_out = {
        name.removesuffix(".gz").replace("lib/systemd/system/", "usr/lib/systemd/system/")
        if name.startswith(("lib/", "usr/share/man/"))
        else name
        for name in set(found) - own
    }
    assert as_laid_out == expected


def test_what_few_need_is_in_packages_of_its_own(packages: Path) -> None:
    vdpad, remote, back_end = (contents(packages / f"{each}.deb") for each in NAMES)
    for name, module in (("remote", "cryptography"), ("back end", "numpy"), ("back end", "qemu")):
        has = {"remote": remote, "back end": back_end}[name]
        assert any(f"/site-packages/{module}/" in each for each in has), module
        assert not any(f"/site-packages/{module}" in each for each in vdpad), module
    assert "usr/bin/vdpad-vhost-user" in back_end
    assert "usr/share/qemu/vhost-user/50-vdpad-vhost-user.json" in back_end
    assert "usr/lib/vdpad/systemd/udp.conf" in remote


def test_their_modes_are_those_of_programs_and_files(packages: Path) -> None:
    for each in NAMES:
        for name, mode in contents(packages / f"{each}.deb").items():
            assert mode in ("-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"), name


def test_they_depend_on_the_python_whose_modules_they_have(packages: Path, installed: Path) -> None:
    (site,) = installed.glob(SITE)
    minor = int(site.parent.name.removeprefix("python3."))
    python = f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~)"
    version = field(packages / "vdpad.deb", "Version")
    for each in NAMES:
        depends = field(packages / f"{each}.deb", "Depends")
        assert python in depends
        assert "libc6 (>= " in depends
        assert (f"vdpad (= {version})" in depends) is (each != "vdpad")


def test_the_settings_are_the_operators(packages: Path) -> None:
    control = subprocess.run(
        ("dpkg-deb", "-I", packages / "vdpad.deb", "conffiles"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert control.stdout.split() == [CONFIG]


@pytest.fixture
def root(tmp_path: Path, packages: Path) -> Iterator[DebianRoot]:
    """A Debian without any of them; they lie in /mnt."""
    skip_or_fail(why_unavailable())
    folder = tmp_path / "root"
    folder.mkdir()
    with debian_root(folder, packages) as one:
        yield one


def deb(*names: str) -> list[str]:
    """Where they lie."""
    return [f"/mnt/{each}.deb" for each in names]


def test_installed_it_restores(root: DebianRoot) -> None:
    root.output(*DPKG, "-i", *deb("vdpad"))
    assert root.output("stat", "-c", "%U:%G %a", "/run/vdpad") == "root:root 755\n"
    assert root.output("id", "-gn", "vdpad") == "vdpad\n"
    wanted = "/etc/systemd/system/sockets.target.wants/vdpad.socket"
    assert root.output("readlink", wanted).endswith("/lib/systemd/system/vdpad.socket\n")
    assert root.run("test", "-e", "/usr/bin/vdpad-vhost-user").returncode == 1
    state = "/usr/share/doc/vdpad/examples/state.json"
    restored = (
        "vdpad --socket /run/try.sock & daemon=$!; "
        "until test -S /run/try.sock; do sleep 0.1; done; "
        f"vdpactl --socket /run/try.sock restore vm-7 {state} --software sim0; "
        "code=$?; kill $daemon; wait $daemon; exit $code"
    )
    done = root.run("sh", "-c", restored)
    assert done.returncode == 0, done
    assert "restored" in done.stdout


def test_where_a_user_of_that_name_was_there_the_group_is_made(root: DebianRoot) -> None:
    root.output("useradd", "--no-user-group", "--gid", "users", "vdpad")
    root.output(*UNTRIGGERED, "-i", *deb("vdpad"))
    assert root.output("id", "-gn", "vdpad") == "users\n"
    assert root.output("getent", "group", "vdpad").startswith("vdpad:")


def test_it_is_removed_where_systemd_cannot_be_asked(root: DebianRoot) -> None:
    root.output(*UNTRIGGERED, "-i", *deb("vdpad", "vdpad-vhost-user"))
    root.output("rm", "-f", "/usr/sbin/policy-rc.d")  # which forbids to ask it
    root.output("mkdir", "-p", "/run/systemd/system")
    root.output(*UNTRIGGERED, "--purge", "vdpad", "vdpad-vhost-user")
    assert root.run("dpkg-query", "-W", "vdpad*").stdout == ""


def test_without_the_package_for_other_hosts_it_is_named(root: DebianRoot) -> None:
    root.output(*UNTRIGGERED, "-i", *deb("vdpad"))
    root.output("vdpactl", "keygen", "/run/key")
    udp = '[udp]\nlisten = "127.0.0.1:47801"\nkey_file = "/run/key"\n'
    root.output("sh", "-c", f"echo '{udp}' > /run/udp.toml")
    host = ("--host", "127.0.0.1:47801", "--key-file", "/run/key")
    asked = ("vdpactl", "--timeout", "1", *host, "info")
    served = ("vdpad", "--socket", "/run/try.sock", "--config", "/run/udp.toml")
    for command in (asked, served):
        done = root.run(*command)
        assert done.returncode == 1
        assert "apt-get install vdpad-remote" in done.stderr
        assert "Traceback" not in done.stderr
    root.output(*UNTRIGGERED, "-i", *deb("vdpad-remote"))
    done = root.run(*asked)
    assert done.returncode == 7  # nobody is there to answer
    assert "vdpad-remote" not in done.stderr


def test_an_upgrade_keeps_settings_and_a_purge_leaves_nothing(
    root: DebianRoot, packages: Path, tmp_path: Path
) -> None:
    root.output(*UNTRIGGERED, "-i", *deb(*NAMES))
    capabilities = root.output("vdpad-vhost-user", "--print-capabilities")
    assert capabilities.startswith("{")
    root.output("sh", "-c", f"echo '# mine' >> {CONFIG}")
    later = [newer(packages / f"{each}.deb", packages) for each in NAMES]
    root.output(*UNTRIGGERED, "-i", *deb(*(each.stem for each in later)))
    version = field(later[0], "Version")
    assert root.output("dpkg-query", "-W", "-f", "${Version}", "vdpad") == version
    assert root.output("tail", "-n", "1", CONFIG) == "# mine\n"

    root.output(*UNTRIGGERED, "--remove", *NAMES)
    assert root.run("test", "-e", "/usr/lib/vdpad").returncode == 1
    assert root.output("tail", "-n", "1", CONFIG) == "# mine\n"
    root.output(*UNTRIGGERED, "--purge", *NAMES)
    assert {each for each in root.changed() if not each.startswith(OTHERS)} == set()
