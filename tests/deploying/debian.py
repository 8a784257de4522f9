"""A Debian of its own for a test to install into: its file system, made once, and a machine that boots systemd from it.

mmdebstrap makes the file system from the package sources that this machine's own apt has; systemd-nspawn boots it in
namespaces, over it a layer in memory that goes with the machine. A machine's network is its loopback address alone,
so ports are those of the pages, and what pip installs is fetched beforehand, with this machine's own settings.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from deploying.recipe import DEPLOY, ROOT

TOOLS = ROOT / ".tools"  # ignored by git
WHEELS = TOOLS / "wheels"
RELEASE = "bookworm"
HOST = "sms.example.com"  # as the pages and examples have it
PACKAGES = (
    "systemd,systemd-sysv,dbus,sudo,procps,iproute2,openssl,curl,ca-certificates,"
    "postgresql,python3-venv,nginx,docker.io,dnsmasq-base"
)
USER = "admin"
HOME = f"/home/{USER}"
# What a machine that is installed for one test starts when the test says so, or never.
AT_REST = ("docker.service", "docker.socket", "containerd.service", "nginx.service", "apt-daily.timer", "fstrim.timer")
HOOKS = (
    f'chroot "$1" systemctl --quiet disable {" ".join(AT_REST)}',
    f'chroot "$1" useradd --create-home --shell /bin/bash {USER}',
    f"""echo '{USER} ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/{USER}" """,
    'rm -rf "$1"/etc/apt/sources.list* "$1"/etc/resolv.conf',
    f'echo {HOST} > "$1/etc/hostname"',
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
CHECKOUT = f"{HOME}/cartwake"
SOURCES = (".dockerignore", "deploy", "src", "docs", "pyproject.toml", "README.md", "LICENSE")
PATH = "/usr/local/bin:/usr/bin:/bin"  # Debian's, of an ordinary user

PR_SET_PDEATHSIG = 1
BOOT_TIMEOUT_S = 90
END_TIMEOUT_S = 120
RUN_TIMEOUT_S = 180
HAS_SYSTEMD = Path("/run/systemd/system").is_dir()  # which then makes the machine's control group


def missing() -> str | None:
    """Why no machine can be booted here; None where one can."""
    if os.geteuid() != 0:
        return "only root may boot a machine in namespaces"
    for program in ("mmdebstrap", "systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed; `make installed` fetches it with apt-get"
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode != 0:
        return "this machine makes no namespaces"
    return None


MISSING = missing()


def file_system() -> Path:
    """The machine's file system: made at the first call, in a minute, and kept beside the checkout's other tools."""
    recipe = "\n".join((RELEASE, PACKAGES, *HOOKS, *LEFT_OUT))
    made = TOOLS / f"debian-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    TOOLS.mkdir(exist_ok=True)
    with FileLock(TOOLS / "debian.lock"):
        if not made.is_dir():
            for old in TOOLS.glob("debian-*/"):
                shutil.rmtree(old)
            unfinished = made.with_name("unfinished-debian")
            shutil.rmtree(unfinished, ignore_errors=True)
            _bootstrap(unfinished)
            unfinished.rename(made)
    return made


def _bootstrap(target: Path) -> None:
    lists = [*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt/sources.list.d").glob("*.list")]
    lists += [Path("/etc/apt/sources.list")]
    ours = [str(path) for path in sorted(lists) if path.is_file() and RELEASE in path.read_text()]
    settings = [f"--aptopt={line}" for line in _apt_settings()]
    left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    hooks = [f"--customize-hook={hook}" for hook in HOOKS]
    words = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"]
    # The cluster that the package postgresql makes takes its encoding from the language, as on a machine for people.
    environment = os.environ | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    subprocess.run([*words, *settings, *left_out, *hooks, RELEASE, str(target), *ours], env=environment, check=True)


def _apt_settings() -> list[str]:
    """How this machine's apt reaches its mirror."""
    told = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    names = ("Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Retries")
    return [line.rstrip(";") for line in told.splitlines() if line.startswith(names)]


def wheels() -> Path:
    """Everything that installing and building Cartwake fetches, in a folder."""
    TOOLS.mkdir(exist_ok=True)
    locks = [DEPLOY / "requirements.lock", DEPLOY / "build.lock"]
    fetched = WHEELS / hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    with FileLock(TOOLS / "wheels.lock"):
        if not fetched.exists():
            for lock in locks:
                words = ["download", "--quiet", "--only-binary=:all:", "--python-version=3.11", "--require-hashes"]
                words += [f"--dest={WHEELS}", f"--find-links={WHEELS}", f"--requirement={lock}"]
                subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
            fetched.touch()
    return WHEELS


Answers = dict[str, Callable[[], str]]


@dataclass(frozen=True)
class Done:
    """What a script of the machine's operator said, and how it ended."""

    code: int
    said: str


class Machine:
    """A booted machine, with an operator who may become root, whose home holds a copy of the checkout."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def run(self, script: str, answers: Answers | None = None, timeout_s: float = RUN_TIMEOUT_S) -> Done:
        """Run a script at the operator's terminal; `answers` says what is typed where its output ends so."""
        words = [*self._inside(USER), "bash", "-euo", "pipefail", "-c", f"cd {CHECKOUT}\n{script}"]
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *words], stdin=theirs, stdout=theirs, stderr=theirs
            )
            os.close(theirs)
            try:
                said = _converse(terminal.fileno(), answers or {}, time.monotonic() + timeout_s)
                return Done(process.wait(END_TIMEOUT_S), said)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def does(self, script: str, answers: Answers | None = None, timeout_s: float = RUN_TIMEOUT_S) -> str:
        """What a script says that must not fail."""
        done = self.run(script, answers, timeout_s)
        assert done.code == 0, done.said[-6000:] + self.journal()
        return done.said

    def until(self, script: str, timeout_s: float = 60) -> str:
        """What a script says once it succeeds; it is asked again and again."""
        deadline = time.monotonic() + timeout_s
        while True:
            done = self.run(script)
            if done.code == 0:
                return done.said
            assert time.monotonic() < deadline, done.said[-3000:] + self.journal()
            time.sleep(0.3)

    def journal(self) -> str:
        """The end of the machine's journal, for whoever reads a failure."""
        return self.run("echo; sudo journalctl --no-pager --no-hostname --lines=60").said

    def copy(self, file: Path, target: str) -> None:
        """Put a file of this machine into that one."""
        with file.open("rb") as content:
            words = [
                *self._inside("root"),
                "sh",
                "-c",
                f"cat > {target} && chmod {oct(file.stat().st_mode)[-3:]} {target}",
            ]
            subprocess.run(words, stdin=content, check=True)

    def _inside(self, user: str) -> list[str]:
        home = "/root" if user == "root" else HOME
        clean = [
            "env",
            "-i",
            f"HOME={home}",
            f"PATH={PATH}",
            f"USER={user}",
            "LANG=C.UTF-8",
            "PAGER=cat",
            "COMPOSE_ANSI=never",
        ]
        return ["nsenter", f"--target={self._leader}", "--all", "--", *clean, "/sbin/runuser", "-u", user, "--"]


def _converse(terminal: int, answers: Answers, deadline: float) -> str:
    """Everything that is said until the other side hangs up."""
    said, heard = "", 0
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            news = os.read(terminal, 65536)
        except OSError:  # how Linux tells that the last one at the other side has gone
            news = b""
        if not news:
            return said.replace("\r\n", "\n")
        said += news.decode(errors="replace")
        for prompt, answer in answers.items():
            if said[heard:].endswith(prompt):
                os.write(terminal, answer().encode() + b"\n")
                heard = len(said)
    raise TimeoutError(said[-3000:])


@contextlib.contextmanager
def booted(folder: Path, *options: str) -> Iterator[Machine]:
    """A machine from its boot to its orderly end; `folder` takes its console's log."""
    name = f"cartwake-{os.getpid()}"
    words = ["systemd-nspawn", "--boot", f"--directory={file_system()}", "--volatile=overlay", f"--machine={name}"]
    words += [
        "--private-network",
        "--register=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        f"--hostname={HOST}",
    ]
    words += [f"--bind-ro={wheels()}:/srv/wheels", f"--bind-ro={_snapshot(folder)}:/srv/cartwake"]
    words += [f"--bind-ro={Path(__file__).parent}:/srv/tests", *options]
    if not HAS_SYSTEMD:
        words.append("--keep-unit")
    with _cgroup(name) as join, (folder / "console.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=join)  # noqa: PLW1509 - the test has no threads
        try:
            leader = _leader_of(process, folder / "console.log")
            machine = Machine(leader)
            _settle(machine, leader)
            yield machine
        finally:
            process.send_signal(signal.SIGTERM)  # nspawn tells the machine to power off
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            finally:
                shutil.rmtree(f"/run/systemd/nspawn/propagate/{name}", ignore_errors=True)  # it leaves that on a disk


def _snapshot(folder: Path) -> Path:
    """The checkout as an operator has it, less what was generated in it."""
    copy = folder / "checkout"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "secrets", ".env", "*.dump")
    for source in SOURCES:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, copy / source, ignore=ignored)
        else:
            shutil.copy(ROOT / source, copy / source)
    return copy


def _leader_of(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    """The machine's first process, by its number here."""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        assert nspawn.poll() is None, log.read_text(errors="replace")
        for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                status = Path(f"/proc/{child}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(ids) > 1 and ids[-1] == "1":
                    return int(child)
        time.sleep(0.1)
    raise TimeoutError(log.read_text(errors="replace"))


def _settle(machine: Machine, leader: int) -> None:
    """Until it has booted; then the operator has the checkout, and pip finds what was fetched."""
    here = ["nsenter", f"--target={leader}", "--all", "--", "/bin/bash", "-c"]
    ready = "until systemctl is-system-running --wait 2>&1 | grep -qE 'running|degraded'; do sleep 0.2; done"
    settings = "[global]\nno-index = true\nfind-links = /srv/wheels\ndisable-pip-version-check = true\n"
    hosts = f"echo '127.0.0.1 localhost {HOST}' > /etc/hosts"
    home = f"cp -r /srv/cartwake {CHECKOUT}; chown -R {USER}: {CHECKOUT}"
    script = "; ".join((ready, f"printf '{settings}' > /etc/pip.conf", hosts, home))
    subprocess.run([*here, script], check=True, timeout=BOOT_TIMEOUT_S)
    failed = machine.does("systemctl --failed --no-legend --plain")
    assert failed == "", failed


@contextlib.contextmanager
def _cgroup(name: str) -> Iterator[Callable[[], None]]:
    """A control group for the machine in each hierarchy, where no systemd of ours would make one; gone with it."""
    groups = [] if HAS_SYSTEMD else [top / name for top in _own_cgroups()]
    for group in groups:
        group.mkdir()
        for cores in ("cpuset.cpus", "cpuset.mems"):
            if (group.parent / cores).is_file():
                (group / cores).write_text((group.parent / cores).read_text())

    def join() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # it does not outlive a test that was killed
        for group in groups:
            (group / "cgroup.procs").write_text("0")

    try:
        yield join
    finally:
        for group in groups:
            for inner in sorted(group.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):  # some are files of the kernel's
                    inner.rmdir()
            group.rmdir()


def _own_cgroups() -> Iterator[Path]:
    """Where this process is, in each hierarchy that is mounted."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, where = line.split(":", 2)
        names = [controllers.removeprefix("name=")] if controllers else ["unified", "."]
        for mounted in (Path("/sys/fs/cgroup") / each for each in names):
            if (mounted / "cgroup.procs").is_file():
                yield mounted / where.lstrip("/")
                break
