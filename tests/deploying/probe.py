"""Started by systemd as `cartwake-probe`, so under the rules of our units: prints what it could do and must not.

Runs on the installed machine's own Python, and imports nothing of ours.
"""

import ctypes
import json
import mmap
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
OWN = Path(os.environ["CREDENTIALS_DIRECTORY"])
SECRETS = Path("/etc/cartwake/secrets")


def unshare(flags: int) -> None:
    if ctypes.CDLL(None).unshare(flags) != 0:
        raise PermissionError


def chmod_suid() -> None:
    Path("/tmp/suid").touch()
    Path("/tmp/suid").chmod(0o4755)


def found(paths: list[Path]) -> None:
    if not paths:
        raise FileNotFoundError


def mapped(protection: int) -> None:
    mmap.mmap(-1, 4096, prot=protection).close()


TRIES: dict[str, Callable[[], object]] = {
    "read the secret keys from their file": (SECRETS / "secret_keys").read_bytes,
    "read the owner's address": (SECRETS / "database_owner_url").read_bytes,
    "list the secrets": lambda: list(SECRETS.iterdir()),
    "see credentials of other units": lambda: found([path for path in OWN.parent.iterdir() if path != OWN]),
    "write into its credentials": lambda: (OWN / "secret_keys").write_bytes(b""),
    "write to /": lambda: Path("/probe").touch(),
    "write to /etc": lambda: Path("/etc/probe").touch(),
    "write to /opt": lambda: Path("/opt/cartwake/probe").touch(),
    "write to /var": lambda: Path("/var/tmp/../lib/probe").touch(),
    "see a home": lambda: found(list(Path("/home").iterdir())),
    "see others' processes": lambda: Path("/proc/1/cmdline").read_bytes(),
    "see others' temporary files": lambda: found(list(Path("/tmp").glob("*.pem"))),
    "make memory executable": lambda: mapped(mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "make a mount namespace": lambda: unshare(CLONE_NEWNS),
    "make a user namespace": lambda: unshare(CLONE_NEWUSER),
    "become root": lambda: os.setuid(0),
    "make a program that runs as another": chmod_suid,
    "listen to the network": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "open a device": lambda: os.open("/dev/kmsg", os.O_RDONLY),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
}


def succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


# What it must be able to do, or the refusals above say nothing.
(OWN / "secret_keys").read_bytes()
Path("/tmp/probe").touch()
mapped(mmap.PROT_READ | mmap.PROT_WRITE)
print(json.dumps([name for name, attempt in TRIES.items() if succeeds(attempt)]))
