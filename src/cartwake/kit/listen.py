"""A port to listen on, or one clear line about why it cannot be had."""

from __future__ import annotations

import errno
import os
import socket

from cartwake.kit.errors import CartwakeError

BACKLOG = 2048


class CannotListenError(CartwakeError):
    """The port cannot be opened; the message says why and which setting chooses another."""

    slug = "cannot-listen"


def open_port(host: str, port: int, setting: str, host_setting: str = "") -> socket.socket:
    """A socket that listens on `host` and `port` (0: any free one). The caller closes it, or hands it to a server.

    `setting` and `host_setting` name what chooses them, for the message of the `CannotListenError`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # `localhost` is often ::1 first, where a proxy that was told 127.0.0.1 does not look.
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise CannotListenError(_why(error, host, port, setting, host_setting or setting)) from None
    listener.setblocking(False)
    return listener


def _why(error: OSError, host: str, port: int, setting: str, host_setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use: stop what listens there, or choose another with {setting}."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} is for privileged users only: choose one from 1024 on with {setting}."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: choose another with {host_setting}."
    return f"Port {port} of {host} cannot be opened: {os.strerror(error.errno) if error.errno else error}."
