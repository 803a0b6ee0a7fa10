"""The configuration's files: drop-ins, and where what is wrong stands."""

from pathlib import Path

import pytest

from vdpad.cli.vdpad import main
from vdpad.daemon.configuration import BadSettings, load_settings


def files(folder: Path, main_file: str, **drop_ins: str) -> Path:
    """A configuration; drop-ins by their names without .toml."""
    (folder / "conf.d").mkdir()
    for name, text in drop_ins.items():
        (folder / "conf.d" / f"{name}.toml").write_text(text)
    path = folder / "vdpad.toml"
    path.write_text(main_file)
    return path


def test_drop_ins_are_laid_over_key_by_key_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = files(
        tmp_path,
        "socket_mode = '0600'\n[limits]\noperations_at_once = 1\noperations_kept = 2\n",
        b="[limits]\noperations_at_once = 5\n",
        a="socket_mode = '0666'\n[limits]\noperations_at_once = 4\n[replay]\npoll_us = 7\n",
    )
    settings = load_settings(path)
    assert settings.socket_mode == "0666"
    assert (settings.limits.operations_at_once, settings.limits.operations_kept) == (5, 2)
    assert settings.replay.poll_us == 7


def test_a_list_replaces_the_one_before(tmp_path: Path) -> None:
    path = files(tmp_path, "allowed_uids = [1, 2]", a="allowed_uids = [3]")
    assert load_settings(path).allowed_uids == (3,)


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    path = files(tmp_path, "")
    (tmp_path / "conf.d" / "README").write_text("not TOML at all")
    (tmp_path / "conf.d" / "old.toml.dpkg-old").write_text("nor this")
    assert load_settings(path) == load_settings(None)


@pytest.mark.parametrize(
    ("main_file", "drop_in", "where", "what"),
    [
        ("unknown = 1", "", "vdpad.toml", "unknown: "),
        ("", "unknown = 1", "conf.d/a.toml", "unknown: "),
        ("[limits]\nnovel = 1", "[limits]\noperations_kept = 2", "vdpad.toml", "limits.novel: "),
        ("[limits]\noperations_kept = 2", "[limits]\nnovel = 1", "conf.d/a.toml", "limits.novel: "),
        ("allowed_uids = [1]", "allowed_uids = ['x']", "conf.d/a.toml", "allowed_uids.0: "),
        ("[udp]\nttl_s = 5", "[udp]\nlisten = '[::]:1'", "conf.d/a.toml", "udp.key_file: "),
        ("", "limits", "conf.d/a.toml", "expected TOML: "),
        ("limits", "", "vdpad.toml", "expected TOML: "),
        ("[access.reboot]", "", "vdpad.toml", "access.reboot"),
        ("[access.commit]\nusers = ['no such user']", "", "vdpad.toml", "access.commit.users.0"),
    ],
)
def test_what_is_wrong_is_told_with_its_file(
    tmp_path: Path, main_file: str, drop_in: str, where: str, what: str
) -> None:
    path = files(tmp_path, main_file, a=drop_in)
    with pytest.raises(BadSettings) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{tmp_path / where}: {what}")


def test_a_file_that_is_no_configuration_is_not_read_whole(tmp_path: Path) -> None:
    path = files(tmp_path, "#" * (1 << 20))
    load_settings(path)
    path.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(BadSettings, match="expected at most 1048576 bytes"):
        load_settings(path)


def test_users_and_groups_are_taken_by_name_or_number(tmp_path: Path) -> None:
    text = "[access.commit]\nusers = ['root', 1234]\ngroups = ['root', 56]"
    access = load_settings(files(tmp_path, text)).access["commit"]
    assert (access.users, access.groups) == ((0, 1234), (0, 56))


def test_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = files(tmp_path, "socket_mode = '0600'", a="[replay]\npoll_us = 7\n")
    assert main(["--check-config", "--config", str(path)]) == 0
    assert capsys.readouterr() == ("", "")
    (tmp_path / "conf.d" / "a.toml").write_text("[replay]\npoll_ms = 7\n")
    assert main(["--check-config", "--config", str(path)]) == 1
    out, said = capsys.readouterr()
    assert not out
    assert said.startswith(f"vdpad: {tmp_path}/conf.d/a.toml: replay.poll_ms: ")
