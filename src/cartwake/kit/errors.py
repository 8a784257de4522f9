"""The tree of errors a caller can act on.

    CartwakeError
    ├── BadInput      what was sent cannot be accepted as it is       (HTTP 400 or 422)
    ├── NotAllowed    the key is good, but not for this               (HTTP 403)
    ├── NotKnown      there is no such thing within the caller's scope (HTTP 404)
    └── Conflict      it contradicts what is already recorded         (HTTP 409)

Each carries a stable `slug` (the last part of the problem document's `type`), a `detail` that says
what was wrong and what to do, and the `field` it concerns when there is one; `also` says what else is
wrong with that field. None of them ever holds a full phone number or a secret: they are shown and
logged as they are.
"""

from __future__ import annotations

from collections.abc import Sequence


class CartwakeError(Exception):
    """Something a caller did, or asked for, that they can put right."""

    slug = "error"

    def __init__(
        self, detail: str, *, slug: str | None = None, field: str | None = None, also: Sequence[str] = ()
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.also = also
        if slug is not None:
            self.slug = slug


class BadInput(CartwakeError):
    """The input cannot be accepted as it is; sending it again unchanged will fail again."""

    slug = "bad-input"


class NotAllowed(CartwakeError):
    """The caller is known, but its key does not open this door."""

    slug = "not-allowed"


class NotKnown(CartwakeError):
    """Nothing by that name within the caller's scope; another tenant's things read the same."""

    slug = "not-known"


class Conflict(CartwakeError):
    """It contradicts what is already recorded."""

    slug = "conflict"
