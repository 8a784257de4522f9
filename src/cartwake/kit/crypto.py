"""Secrets at work: phone numbers encrypted at rest, looked up by keyed hash, and tokens that cannot be forged.

One root secret (`CARTWAKE_SECRET_KEY`) per key id; every purpose derives its own key from it (HKDF,
RFC 5869), so a hash can never be replayed as a token or the reverse. Old root secrets stay readable:
rotating means putting a new one first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
KEY_ID_BYTES = 4


def b64url(data: bytes) -> str:
    """URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def un_b64url(text: str) -> bytes:
    """The reverse of `b64url`. Raises `ValueError` on anything that `b64url` would not have written."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if b64url(data) != text:  # trailing bits or padding that decode to the same bytes
        raise ValueError("not canonical base64url")
    return data


class Vault:
    """Encrypts, hashes and signs with keys derived from the deployment's root secrets."""

    def __init__(self, root_secrets: Sequence[bytes]) -> None:
        """`root_secrets`: the one to write with first, then older ones that may still be read."""
        if not root_secrets:
            raise ValueError("at least one secret is needed")
        self._roots = {hashlib.sha256(b"key-id" + root).digest()[:KEY_ID_BYTES]: root for root in root_secrets}
        self._current = next(iter(self._roots))
        self._key = lru_cache(maxsize=64)(self._derive)

    def seal(self, plain: str | bytes, purpose: str) -> bytes:
        """Encrypt (AES-256-GCM). The result names its key, so that it survives a rotation."""
        nonce = os.urandom(NONCE_BYTES)
        data = plain.encode() if isinstance(plain, str) else plain
        cipher = AESGCM(self._key(self._current, "seal:" + purpose))
        return self._current + nonce + cipher.encrypt(nonce, data, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Decrypt what `seal` made. Raises `ValueError` when it was altered or its key is gone."""
        key_id, nonce = sealed[:KEY_ID_BYTES], sealed[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
        if key_id not in self._roots:
            raise ValueError("sealed with a secret key that is no longer configured")
        try:
            body = sealed[KEY_ID_BYTES + NONCE_BYTES :]
            return AESGCM(self._key(key_id, "seal:" + purpose)).decrypt(nonce, body, purpose.encode())
        except InvalidTag:
            raise ValueError("sealed data was altered") from None

    def hash(self, text: str, purpose: str) -> bytes:
        """Keyed hash under the *oldest* secret (32 bytes), for looking up what is stored encrypted.

        The oldest, because a suppression must still be found after every rotation.
        """
        return self._mac(next(reversed(self._roots)), purpose, text.encode())

    def sign(self, message: bytes, purpose: str, length: int = 32) -> bytes:
        """A MAC over `message`, cut to `length` bytes (9 bytes, 72 bits, is the least for a link)."""
        return self._mac(self._current, purpose, message)[:length]

    def verify(self, message: bytes, mac: bytes, purpose: str) -> bool:
        """Whether any configured secret signed `message` so; compared in constant time."""
        if len(mac) < 9:
            return False
        good = [hmac.compare_digest(self._mac(key_id, purpose, message)[: len(mac)], mac) for key_id in self._roots]
        return any(good)

    def password(self, login: str) -> str:
        """The database password of one of our logins, derived so that no process must be told it."""
        return b64url(self._mac(next(reversed(self._roots)), "database-login", login.encode())[:24])

    def _mac(self, key_id: bytes, purpose: str, message: bytes) -> bytes:
        return hmac.digest(self._key(key_id, "mac:" + purpose), message, "sha256")

    def _derive(self, key_id: bytes, info: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=info.encode()).derive(self._roots[key_id])


def hash_secret(secret: str) -> bytes:
    """SHA-256 of an API key: keys are 256 random bits, so no slow hash is needed to store them."""
    return hashlib.sha256(secret.encode()).digest()
