"""Which network addresses a merchant's webhook may lead to: those of the public internet, and nothing of ours."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

# IPv6 addresses that carry an IPv4 address to be reached through a translator (RFC 6052, RFC 8215).
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet may be reached at.

    Not: private, loopback, link-local (cloud metadata lives there), site-local, shared, reserved, multicast; nor
    one of these inside an IPv6 address.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if any(ip in network for network in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:  # fec0::/10, which Python takes for global
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def is_public_host(url: str) -> bool:
    """Whether a web address may be public as far as its text tells; a name is judged when it is connected to."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." in host
    return is_public(host)
