"""What a sandbox must still know after `kill -9`: one JSON line for each thing, written before anybody is answered.

A line is handed to the operating system in one piece and not waited for on the disk: it outlives the process,
and not the machine. A line that was cut off is as if it had never been begun: nobody was answered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of one sandbox; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, making it when there is none, and drop a last line that was cut off."""
        self._file = None if path is None else os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        if self._file is not None:
            os.ftruncate(self._file, self._content().rfind(b"\n") + 1)

    def note(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Append one line. Returns once it outlives this process."""
        if self._file is not None:
            os.write(self._file, json.dumps({kind: facts}).encode() + b"\n")

    def lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What was noted, oldest first: the kind of each line, and its facts."""
        if self._file is not None:
            for line in self._content().splitlines():
                yield from json.loads(line).items()

    def clear(self) -> None:
        """Forget everything."""
        if self._file is not None:
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close the file; what is noted afterwards is kept nowhere. Harmless to repeat."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _content(self) -> bytes:
        assert self._file is not None
        return os.pread(self._file, os.fstat(self._file).st_size, 0)
