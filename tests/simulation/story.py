"""What happened, line by line, and the one number that says whether two stories were the same."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

LINES_KEPT = 20_000  # of a long story; a failure is explained by its last lines


class Broken(Exception):
    """Something that must always be true is not."""

    def __init__(self, what: str, detail: str, ids: Iterable[object] = ()) -> None:
        super().__init__(f"{what}: {detail}")
        self.what = what
        self.detail = detail
        self.ids = {str(each) for each in ids if each is not None}


@dataclass(frozen=True)
class Line:
    """Somebody did something."""

    step: int
    at: datetime
    who: str
    what: str
    ids: frozenset[str]

    def __str__(self) -> str:
        return f"{self.step:6} {self.at:%m-%d %H:%M:%S.%f} {self.who:22} {self.what}"


class Story:
    """The lines of one run, the last ones kept, all of them counted into the digest."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=LINES_KEPT)
        self._digest = hashlib.blake2b(digest_size=8)

    def tell(self, step: int, at: datetime, who: str, what: str, ids: Collection[object] = ()) -> None:
        """Add a line. `ids` is what it is about."""
        line = Line(step, at, who, what, frozenset(map(str, ids)))
        self.lines.append(line)
        self._digest.update(f"{line}{sorted(line.ids)}\n".encode())

    @property
    def digest(self) -> str:
        """The same for two runs in which the same things happened in the same order at the same times."""
        return self._digest.hexdigest()

    def about(self, ids: Collection[str], limit: int = 30) -> list[Line]:
        """The last lines that touch any of `ids`; the last lines of all when none does."""
        touching = [line for line in self.lines if not line.ids.isdisjoint(ids)]
        return (touching or list(self.lines))[-limit:]
