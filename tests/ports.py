"""Ports for servers that a test starts a moment later."""

from __future__ import annotations

import secrets
import socket

# Below the range from which systems take the ports of outgoing connections: one of those would be taken in between,
# now and then, by whatever else runs. A Redis cluster needs the port ten thousand above as well.
FIRST, LAST = 10_240, 22_000


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
