"""The embedded PostgreSQL under abuse: killed by force, out of disk, read-only, lied to. It starts again, or says why.

`make abuse` runs these, as root and, with the system's Python, as an ordinary user too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from cartwake.kit import embedded, embedded_cluster, embedded_home
from cartwake.kit.embedded import EmbeddedPostgresError, embedded_postgres, start_embedded
from homes import IS_ROOT, Client, ask, has_stopped, modes_above, only_root, server_pid, soon

pytestmark = [pytest.mark.abuse, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ROOMY_MB = 400
STUCK_S = 90  # no test here takes a third of it


def keeper_pid(home: Path) -> int:
    """The pid of the process that stops the server when nobody is left to."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended meanwhile
            continue
        if str(home) in words and any(word.endswith("embedded_home.py") for word in words):
            return int(cmdline.parent.name)
    raise AssertionError("there is no keeper")


# --- killed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Client.leave, Client.kill])
def test_a_server_survives_its_starter_but_not_its_last_user(home: Path, end: Callable[[Client], None]) -> None:
    starter = Client(home)
    url = starter.url()
    with embedded_postgres(home, durable=False):
        end(starter)
        assert ask(url, "SELECT 1") == 1
    assert has_stopped(home)


def test_starting_twice_at_once_gives_one_server(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Client(home) as one, Client(home) as two, Client(home) as three:
        assert one.url() == two.url() == three.url()
    assert (home / "postgres.log").read_text().count("ready to accept connections") == 1
    assert has_stopped(home)


def test_a_server_whose_only_client_was_killed_is_stopped(home: Path) -> None:
    only = Client(home)
    only.url()
    pid = server_pid(home)
    only.kill()
    assert soon(lambda: has_stopped(home) and not Path(f"/proc/{pid}").exists())
    assert "database system is shut down" in (home / "postgres.log").read_text()


def test_after_kill_9_of_the_server_the_next_start_recovers(home: Path) -> None:
    with embedded_postgres(home) as old:
        ask(old.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(server_pid(home), signal.SIGKILL)
        with embedded_postgres(home) as new:
            assert ask(new.url, "SELECT answer FROM kept") == 42
            assert ask(old.url, "SELECT 1") == 1, "on the same port: who had the address still has it"
    assert has_stopped(home)


def test_after_kill_9_of_everybody_the_next_start_recovers(home: Path) -> None:
    with Client(home) as one, Client(home) as two:
        assert one.url() == two.url()
        ask_as_owner = psycopg.connect(_url_of(home), autocommit=True)
        ask_as_owner.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        ask_as_owner.execute("CHECKPOINT")  # these clients' server is not durable by itself
        server, keeper = server_pid(home), keeper_pid(home)
        for pid in (keeper, one.process.pid, two.process.pid, server):
            os.kill(pid, signal.SIGKILL)
        ask_as_owner.close()
        for client in (one, two):
            client.process.communicate()
    with embedded_postgres(home, durable=False) as again:
        assert ask(again.url, "SELECT answer FROM kept") == 42
        assert server_pid(home) != server
    assert has_stopped(home)


def test_a_server_without_keeper_and_clients_is_joined_and_then_stopped(home: Path) -> None:
    with Client(home) as only:
        url = only.url()
        server = server_pid(home)
        for pid in (keeper_pid(home), only.process.pid):
            os.kill(pid, signal.SIGKILL)
        only.process.communicate()
    assert ask(url, "SELECT 1") == 1, "nobody was left to stop it"
    with embedded_postgres(home, durable=False) as joined:
        assert (joined.url, server_pid(home)) == (url, server)
    assert soon(lambda: has_stopped(home) and not Path(f"/proc/{server}").exists())


def test_a_first_start_that_was_killed_is_made_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = Client(home)
    assert soon((home / "data.new" / "PG_VERSION").exists)
    first.kill()
    with embedded_postgres(home, durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1
    assert has_stopped(home) and not (home / "data.new").exists()


def test_half_a_cluster_is_made_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "data.new" / "base").mkdir(parents=True)
    (home / "password").write_text("of-the-first-try")
    with embedded_postgres(home, durable=False) as server:
        assert ":of-the-first-try@" in server.url
    assert not (home / "data.new").exists()


# --- lied to -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["the server's user", "root"])
def test_a_pid_file_that_names_a_stranger_is_not_believed(home: Path, whose: str) -> None:
    stale = home / "data" / "postmaster.pid"
    with embedded_postgres(home, durable=False):
        lines = stale.read_text().splitlines()
    stranger = subprocess.Popen(["sleep", "60"], **embedded_cluster.server_user(embedded_home.Home(home)).options())
    lines[0] = str(stranger.pid) if whose == "the server's user" else "1"
    stale.write_text("\n".join([*lines, ""]))
    os.chown(stale, (home / "data").stat().st_uid, -1)
    with embedded_postgres(home, durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_postgres_that_somebody_else_started_here_is_left_alone(home: Path) -> None:
    user = embedded_cluster.server_user(embedded_home.Home(home))
    binaries = embedded_cluster.find_binaries(user)
    command = [binaries.tool("postgres"), "-D", user.name_for(home / "data"), "-c", "unix_socket_directories="]
    command += ["-c", f"port={embedded._free_port()}"]
    process = subprocess.Popen(command, cwd=home / "data", stderr=subprocess.DEVNULL, **user.options())
    try:
        assert soon(lambda: "ready   " in embedded_home.Home(home).pid_file())
        with pytest.raises(EmbeddedPostgresError, match=f"did not start .pid {process.pid}. runs on"):
            start_embedded(home)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def test_data_of_another_major_version_is_refused(home: Path) -> None:
    (home / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 16, but .* binaries are \d+ .*Nothing was"):
        start_embedded(home)
    (home / "data" / "PG_VERSION").unlink()
    with pytest.raises(EmbeddedPostgresError, match="not a PostgreSQL data folder"):
        start_embedded(home)


# --- no room, no permission --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory, of 24 MB: too small for a cluster."""
    if not IS_ROOT:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    yield folder
    assert soon(lambda: unmounted(folder))


def unmounted(folder: Path) -> bool:
    """Whether it is no longer mounted; a keeper that is about to end may keep it busy for a moment."""
    if folder.is_mount():
        subprocess.run(["umount", folder], capture_output=True, check=False)
    return not folder.is_mount()


def remount(folder: Path, options: str) -> None:
    """Change the mount, once nobody keeps it busy."""
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    assert soon(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0)


def fill(folder: Path) -> Path:
    """Take what room is left; the file that took it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65536)
        except OSError:
            return filler


def test_a_first_start_on_a_full_disk_says_so_and_works_once_there_is_room(small_disk: Path) -> None:
    home = small_disk / "home"
    for _ in range(2):
        with pytest.raises(
            EmbeddedPostgresError, match=r"(?s)The disk is full: free some space.*No space left on device"
        ):
            start_embedded(home, durable=False)
        assert has_stopped(home)
    remount(small_disk, f"size={ROOMY_MB}m")
    with embedded_postgres(home, durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1
    assert has_stopped(home)


def test_a_disk_that_fills_up_loses_nothing(small_disk: Path) -> None:
    remount(small_disk, f"size={ROOMY_MB}m")
    home = small_disk / "home"
    with embedded_postgres(home) as server:
        ask(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        filler = fill(small_disk)
        with pytest.raises(psycopg.Error):  # refused for want of room, or the server gives up on its journal
            ask(server.url, "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
    assert has_stopped(home), "it can be stopped without room"
    try:
        with embedded_postgres(home) as server:  # it may get by, where what it needs was there before
            assert ask(server.url, "SELECT answer FROM kept") == 42
    except EmbeddedPostgresError as error:
        assert "The disk is full: free some space" in str(error)
    assert has_stopped(home)
    filler.unlink()
    with embedded_postgres(home) as server:
        assert ask(server.url, "SELECT answer FROM kept") == 42
        assert ask(server.url, "SELECT to_regclass('large')") is None
    assert has_stopped(home)


def test_a_read_only_file_system_is_named(small_disk: Path) -> None:
    remount(small_disk, f"size={ROOMY_MB}m")
    home = small_disk / "home"
    start_embedded(home, durable=False).release()
    remount(small_disk, "ro")
    with pytest.raises(EmbeddedPostgresError, match=r"Read-only file system.*set CARTWAKE_DATA_DIR to"):
        start_embedded(home, durable=False)
    with pytest.raises(EmbeddedPostgresError, match="Read-only file system"):
        start_embedded(small_disk / "new", durable=False)
    remount(small_disk, "rw")
    start_embedded(home, durable=False).release()
    assert has_stopped(home)


@pytest.mark.skipif(IS_ROOT, reason="permissions do not keep root out; the ordinary user's run has this")
@pytest.mark.parametrize("locked", [".", "data"])
def test_a_folder_that_may_not_be_written_is_named_and_left_as_it_is(home: Path, locked: str) -> None:
    folder = home / locked
    before = folder.stat().st_mode
    folder.chmod(0o500)
    try:
        with pytest.raises(EmbeddedPostgresError, match=r"[Pp]ermission") as refused:
            start_embedded(home, durable=False)
        assert str(home) in str(refused.value)
        assert folder.stat().st_mode & 0o777 == 0o500
    finally:
        folder.chmod(before)
    above = modes_above(home)
    with embedded_postgres(home, durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1
    assert has_stopped(home) and modes_above(home) == above


# --- as an ordinary user -----------------------------------------------------------------------------------


@only_root
def test_all_of_this_holds_for_an_ordinary_user(open_folder: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = next((p for p in (shutil.which(version, path=f) for f in ("/usr/bin", "/usr/local/bin")) if p), None)
    user = embedded_cluster.ServerUser(1, 1, is_switched_to=True, reaches_home=True)
    packages = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    needed = [path for path in (packages, ROOT / "src", ROOT / "tests") if path.exists()]
    if python is None or not embedded_cluster._can_reach(user, *needed):
        pytest.skip(f"an ordinary user cannot reach a {version} with our packages")
    mine = open_folder / "theirs"
    mine.mkdir(mode=0o700)
    os.chown(mine, 1, 1)
    files = ["tests/rooms/test_embedded_abuse.py", "tests/rooms/test_embedded_postgres.py"]
    command = [
        python,
        "-B",
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "-rs",
        f"--basetemp={mine / 'run'}",
        *files,
    ]
    command += ["-o", f"faulthandler_timeout={STUCK_S}"]  # a test that hangs says where, and the others go on
    environment = {"PYTHONPATH": f"{packages}:{ROOT / 'src'}", "PATH": "/usr/bin:/bin", "HOME": str(mine)}
    told = mine / "told"
    with told.open("wb") as output:
        ran = subprocess.Popen(
            command, cwd=ROOT, env=environment, user=1, group=1, extra_groups=[], stdout=output, stderr=output
        )
    try:
        code = ran.wait(timeout=6 * STUCK_S)
    except subprocess.TimeoutExpired:
        ran.kill()
        code = ran.wait()
    said = told.read_text()
    assert code == 0, said[-8000:]
    assert " passed" in said and "may not be written" not in said


def _url_of(home: Path) -> str:
    return embedded._url(embedded_home.Home(home), int(embedded_home.Home(home).read_state()[0] or 0), "cartwake")
