"""The embedded PostgreSQL: real servers, started, shared and stopped. What is done to them by force: `make abuse`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import psycopg
import pytest

from cartwake.kit import embedded, embedded_cluster, embedded_home
from cartwake.kit.embedded import EmbeddedPostgresError, embedded_postgres, start_embedded
from homes import IS_ROOT, Client, ask, has_stopped, mode, modes_above, only_root, server_pid, soon

EXPECTED_SETTINGS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "jit": "off"}
EXPECTED_SETTINGS |= {"timezone": "UTC", "server_encoding": "UTF8", "max_connections": "200"}
EXPECTED_SETTINGS |= {"password_encryption": "scram-sha-256", "unix_socket_directories": ""}


def test_the_first_start_makes_a_private_durable_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, above = tmp_path / ".cartwake", modes_above(tmp_path)
    monkeypatch.chdir(tmp_path)
    with embedded_postgres() as server:
        assert server.home == home, "by default it lives in the working folder"
        assert server.url.startswith("postgresql://cartwake:") and server.url.endswith("/cartwake")
        assert ask(server.url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True
        for setting, value in EXPECTED_SETTINGS.items():
            assert ask(server.url, f"SHOW {setting}") == value
        assert ask(server.url, "SELECT lower('Š') || (SELECT max(x) FROM (VALUES ('Z'), ('a')) AS v(x))") == "ša"
        assert ask(server.url, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0
    assert modes_above(tmp_path) == above
    assert (mode(home / "data"), mode(home / "password"), mode(home) & 0o066) == (0o700, 0o600, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("reachable", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_restart_keeps_data_and_port(tmp_path: Path, open_folder: Path, reachable: bool) -> None:
    home = (open_folder if reachable else tmp_path) / "a home with spaces"
    with embedded_postgres(home, durable=False) as server:
        ask(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert ask(server.url, "SHOW fsync") == "off"
        url = server.url
    (home / "postgres.log").write_bytes(b"x" * (embedded_home.LOG_LIMIT_BYTES + 1))
    with embedded_postgres(home, durable=False) as server:
        assert server.url == url
        assert ask(server.url, "SELECT answer FROM kept") == 42
    assert (home / "postgres.log").stat().st_size < 10_000


@pytest.mark.thorough
def test_two_processes_share_a_server_and_the_last_one_out_stops_it(home: Path) -> None:
    server = start_embedded(home, durable=False)
    with Client(home) as other:
        assert other.url() == server.url
        pid = server_pid(home)
        server.release()
        assert ask(server.url, "SELECT 1") == 1
    assert soon(lambda: not Path(f"/proc/{pid}").exists()), "not even a zombie stays, although its parent lives"
    assert has_stopped(home)


@pytest.mark.thorough
def test_a_share_that_was_released_twice_or_refused_takes_nothing_from_others(home: Path) -> None:
    with embedded_postgres(home, durable=False) as other:
        share = start_embedded(home, durable=False)
        share.release()
        share.release()
        with pytest.raises(EmbeddedPostgresError, match="without durability"):
            start_embedded(home)  # which durable=True must not get
        assert ask(other.url, "SELECT 1") == 1
    assert has_stopped(home)


@pytest.mark.thorough
def test_a_copied_home_is_another_server(home: Path) -> None:
    copy = home.with_name("copy")
    subprocess.run(["cp", "-a", home, copy], check=True)
    with embedded_postgres(home, durable=False) as one, embedded_postgres(copy, durable=False) as two:
        assert one.url != two.url, "although both wish for the port of last time"
        ask(one.url, "CREATE TABLE only_here ()")
        assert ask(two.url, "SELECT to_regclass('only_here')") is None


@pytest.mark.thorough
def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = json.loads((home / "server.json").read_text())["port"]
    free = embedded._free_port()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", last))
        taken.listen()
        ports = iter([last, free])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        with embedded_postgres(home, durable=False) as server:
            assert f":{free}/" in server.url


@pytest.mark.thorough
def test_the_environment_of_another_database_does_not_mislead(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOSTADDR": "192.0.2.1", "PGSSLMODE": "require", "PGDATA": "/nowhere", "PGPORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CARTWAKE_SECRET_KEYS", "not for the server to know")
    with embedded_postgres(home, durable=False):
        environment = Path(f"/proc/{server_pid(home)}/environ").read_text()
    assert "not for the server" not in environment and "PGDATA" not in environment


def test_nobody_gets_in_without_the_password(home: Path) -> None:
    with embedded_postgres(home, durable=False) as server:
        address = server.url.split("@")[1]
        for login in ("cartwake", "cartwake:guess", "postgres:postgres", "nobody:"):
            with pytest.raises(psycopg.OperationalError, match=r"no password|password authentication failed"):
                psycopg.connect(f"postgresql://{login}@{address}", passfile="/nonexistent")


@pytest.mark.thorough
def test_it_listens_on_loopback_only(home: Path) -> None:
    with embedded_postgres(home, durable=False) as server:
        port = f":{int(server.url.rsplit(':', 1)[1].split('/')[0]):04X}"
        sockets = [line.split() for path in Path("/proc/net").glob("tcp*") for line in path.read_text().splitlines()]
        assert [words[1] for words in sockets if words[3] == "0A" and words[1].endswith(port)] == [f"0100007F{port}"]


def test_what_a_statement_held_is_not_in_the_log(home: Path) -> None:
    with embedded_postgres(home, durable=False) as server:
        ask(server.url, "CREATE TABLE phones (phone text UNIQUE)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            ask(server.url, "INSERT INTO phones VALUES ('+37061234567'), ('+37061234567')")
    assert "duplicate key" in (home / "postgres.log").read_text()
    assert "61234567" not in (home / "postgres.log").read_text()


@pytest.mark.thorough
def test_a_server_that_will_not_start_says_why_and_leaves_nothing(home: Path) -> None:
    with (home / "data" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match=r"did not start in .*\n.*no_such_setting"):
        start_embedded(home)
    assert has_stopped(home)


@pytest.mark.thorough
def test_a_lost_or_wrong_password_is_explained(home: Path) -> None:
    (home / "password").write_text("wrong")
    with pytest.raises(EmbeddedPostgresError, match="put the old one back"):
        start_embedded(home, durable=False)
    (home / "password").unlink()
    with pytest.raises(EmbeddedPostgresError, match="password is gone: put it back"):
        start_embedded(home, durable=False)
    assert has_stopped(home)


def test_a_home_that_cannot_be_one_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match=r"File exists.*Set CARTWAKE_DATA_DIR to a folder"):
        start_embedded(tmp_path / "file")
    with pytest.raises(EmbeddedPostgresError, match="Not a directory"):
        start_embedded(tmp_path / "file" / "home")
    if not IS_ROOT:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(EmbeddedPostgresError, match=r"Permission denied.*Use the user that it belongs to"):
            start_embedded(tmp_path / "locked")
    monkeypatch.setattr(embedded_cluster, "PACKAGE", "no_such_package")
    with pytest.raises(EmbeddedPostgresError, match="binaries are missing: install the package `embedded-postgres`"):
        start_embedded(tmp_path / "home")


@pytest.mark.thorough
@only_root
@pytest.mark.parametrize("reachable", [pytest.param(True, marks=pytest.mark.slow), False])
def test_started_by_root_the_server_is_not_root(tmp_path: Path, open_folder: Path, reachable: bool) -> None:
    tmp_path.chmod(0o700)
    home = (open_folder if reachable else tmp_path) / "home"
    above = modes_above(home)
    with embedded_postgres(home, durable=False) as server:
        status = Path(f"/proc/{server_pid(home)}/status").read_text()
        uids, groups = (line.split()[1:] for line in status.splitlines() if line.startswith(("Uid:", "Groups:")))
        assert "0" not in uids and "0" not in groups
        assert ask(server.url, "SHOW data_directory") == (f"{home}/data" if reachable else "/proc/self/cwd")
    assert modes_above(home) == above
    assert (home / "data").stat().st_uid != 0 and (home / "password").stat().st_uid == 0


@pytest.mark.thorough
@only_root
@pytest.mark.parametrize(("owner_uid", "server_uid"), [(1, 1), pytest.param(54321, 65534, marks=pytest.mark.slow)])
def test_root_in_the_home_of_somebody_leaves_it_to_them(tmp_path: Path, owner_uid: int, server_uid: int) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, owner_uid, owner_uid)
    with embedded_postgres(home, durable=False):
        assert (home / "data").stat().st_uid == server_uid  # 54321 has no name, so it cannot be the server's user
    assert {path.stat().st_uid for path in home.iterdir() if path.name != "data"} == {owner_uid}
    assert mode(home) == 0o700


@pytest.mark.thorough
@only_root
def test_binaries_out_of_reach_are_copied_once(home: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = embedded_cluster.find_binaries(embedded_cluster.server_user(embedded_home.Home(home)))
    private = home.with_name("private")
    private.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (private / name).symlink_to(installed.site / name)
    monkeypatch.syspath_prepend(private)
    monkeypatch.setattr(embedded_cluster, "COPIES", open_folder / "copies")
    with embedded_postgres(home, durable=False) as server:
        ask(server.url, "CREATE EXTENSION citext")
        assert Path(f"/proc/{server_pid(home)}/exe").readlink().is_relative_to(open_folder / "copies")
    (copy,) = (open_folder / "copies").iterdir()
    made_at = copy.stat().st_mtime_ns
    start_embedded(home, durable=False).release()
    assert copy.stat().st_mtime_ns == made_at
    assert mode(private) == 0o700
