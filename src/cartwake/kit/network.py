"""Why an HTTP call got no answer, in words that lead somewhere."""

from __future__ import annotations

import enum
import os
import ssl

import aiohttp

# OpenSSL's words for what is wrong with a certificate, and what to do; the first that fits.
CERTIFICATE_ADVICE = (
    ("expired", "renew it"),
    ("not yet valid", "look at this machine's clock"),
    ("self-signed", "use one that a public authority has signed"),
    ("unable to get local issuer", "let the server send its intermediate certificates too"),
    ("mismatch", "use one that is made out to this host name"),
    ("not valid for", "use one that is made out to this host name"),
)


class NetworkTrouble(enum.StrEnum):
    """What kind of failure it was."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"


def trouble_of(error: Exception) -> NetworkTrouble:
    """The kind of a failure that aiohttp raised."""
    if isinstance(error, TimeoutError):
        return NetworkTrouble.TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return NetworkTrouble.CERTIFICATE
    return NetworkTrouble.UNREACHABLE


def explain(error: Exception) -> str:
    """One clause about it, without anything that was sent."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate(error)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "it does not speak TLS on this port (an http address with https before it?)"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "no such host is known"
    why = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        # Twisted through asyncio, the words are "Connect call failed ('127.0.0.1', 1)"; the number is what counts.
        why = os.strerror(error.os_error.errno) if error.os_error.errno else why
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        why = "closed without an answer"
    return f"the connection failed: {why}"


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    said = str(getattr(error.certificate_error, "verify_message", "") or "not trusted").rstrip(".")
    advice = next((advice for word, advice in CERTIFICATE_ADVICE if word in said.lower()), "")
    return f"its certificate is refused: {said}" + (f" ({advice})" if advice else "")
