"""The offline verifier of an exported chain: no database, no key, no network, no settings.

It goes through the file line by line and keeps no more than a line of it. Every line must be written in the one form
that is hashed, so there is nothing in the file that the hashes do not cover, but what awaits sealing, and the file's
own word for it that it is whole.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from cartwake.consent.chain import FORMAT, SALT_BYTES, canonical, commitment_of, digest_of, genesis, link_of

LINE_MAX_BYTES = 1024 * 1024

# How other encodings begin, and UTF-8 in some editors.
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_MARKED = "a byte order mark stands before it: an editor changed the file; take the first copy."
_HASH = re.compile(r"[0-9a-f]{64}")
_SALT = re.compile(rf"[0-9a-f]{{{2 * SALT_BYTES}}}")
_PUBLIC = {"event_id", "action", "channel", "at", "commitment"}
_FIELDS = {
    "chain": {"format", "organization_id", "shop_id", "whole"},
    "waiting": {*_PUBLIC, "proof"},
    "event": {*_PUBLIC, "proof", "position", "sealed_at", "link"},
    "other": {"position", "digest", "link"},
    "head": {"position", "head"},
}


class BadExportError(Exception):
    """The first line that is wrong, and what is wrong with it."""

    def __init__(self, line: int, wrong: str) -> None:
        super().__init__(f"Line {line}: {wrong}")


@dataclass
class Verified:
    """What a whole file was found to hold."""

    organization_id: str
    shop_id: str
    whole: bool
    head: bytes
    position: int = 0
    proven: int = 0
    erased: int = 0
    others: int = 0
    waiting: int = 0
    unproven: int = 0  # of those that wait, without evidence: nothing vouches for them
    noted: dict[str, int] = field(default_factory=dict)  # heads that were looked for, and their positions


def verify(file: BinaryIO, heads: Collection[str] = ()) -> Verified:
    """Check every line of an export. `heads`: links noted earlier, lower-case hex, to be looked for.

    Raises `BadExportError` at the first line that is wrong.
    """
    lines = _lines(file)
    number, first = next(lines, (1, None))
    if first is None:
        raise BadExportError(1, "the file is empty.")
    if first.get("type") != "chain" or first.get("format") != FORMAT:
        raise BadExportError(1, f"this is no export of a consent chain (it would begin with the format {FORMAT}).")
    _check_fields(number, first)
    organization_id, shop_id = _text(number, first, "organization_id"), _text(number, first, "shop_id")
    if type(first["whole"]) is not bool:
        raise BadExportError(1, "whole must be true or false.")
    seen = Verified(organization_id, shop_id, first["whole"], genesis(organization_id, shop_id))
    _note(seen, heads)
    for number, line in lines:
        _check_fields(number, line)
        if line["type"] == "head":
            _check_end(number, line, seen)
            if extra := next(lines, None):
                raise BadExportError(extra[0], "there is something after the head, where the export ends.")
            return seen
        if line["type"] == "chain":
            raise BadExportError(number, "another export begins here.")
        if line["type"] == "waiting":
            _check_waiting(number, line, seen)
        else:
            _check_link(number, line, seen)
            _note(seen, heads)
    raise BadExportError(number + 1, "the head is missing: the file was cut off.")


def _lines(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while raw := file.readline(LINE_MAX_BYTES + 1):
        number += 1
        if len(raw) > LINE_MAX_BYTES:
            raise BadExportError(number, f"it is longer than {LINE_MAX_BYTES} bytes, which none of an export is.")
        try:
            line = json.loads(raw)
            is_canonical = isinstance(line, dict) and canonical(line) + b"\n" == raw
        except (ValueError, RecursionError):
            raise BadExportError(number, _not_json(raw)) from None
        if not isinstance(line, dict):
            raise BadExportError(number, "it is no JSON object, as every line of an export is.")
        if not is_canonical:
            cut = "" if raw.endswith(b"\n") else " The file was cut off here, or its last line end is missing."
            raise BadExportError(number, f"{_not_as_written(raw)}{cut}")
        yield number, line


def _not_as_written(raw: bytes) -> str:
    if raw.startswith(_MARKS):
        return _MARKED
    if raw.endswith(b"\r\n"):
        return "its line ends are not an export's (CRLF): a program changed the file on its way; take the first copy."
    return "it is not written as an export writes it, so it was changed."


def _shortened(value: object) -> str:
    """Something of the file's, as it may be shown."""
    return ascii(value)[:80]


def _not_json(raw: bytes) -> str:
    if raw.startswith(_MARKS):
        return _MARKED
    return "it is not JSON." if raw.endswith(b"\n") else "it is not JSON; the file seems to be cut off here."


def _check_fields(number: int, line: dict[str, Any]) -> None:
    expected = _FIELDS.get(line["type"]) if isinstance(line.get("type"), str) else None
    if expected is None:
        raise BadExportError(number, "no export has a line of this type.")
    found = set(line) - {"type"}
    if missing := sorted(expected - found):
        gone = " The event itself is gone from the database." if missing == sorted(_GONE) else ""
        raise BadExportError(number, f"it lacks {', '.join(missing)}.{gone}")
    if extra := sorted(found - expected):
        raise BadExportError(number, f"it has what no hash covers: {_shortened(', '.join(extra))}.")


# What a link has not when its event was removed.
_GONE = {"action", "channel", "at", "commitment", "proof", "sealed_at"}


def _check_waiting(number: int, line: dict[str, Any], seen: Verified) -> None:
    if seen.position:
        raise BadExportError(number, "what awaits sealing stands before the chain, not in it.")
    _hash(number, line, "commitment")
    for name in sorted(_PUBLIC):
        _text(number, line, name)
    seen.unproven += not _check_proof(number, line)
    seen.waiting += 1


def _check_link(number: int, line: dict[str, Any], seen: Verified) -> None:
    position = line["position"]
    if type(position) is not int:
        raise BadExportError(number, "position must be a whole number.")
    if position != seen.position + 1:
        raise BadExportError(
            number, f"position {position} follows position {seen.position}: lines are missing or moved."
        )
    if line["type"] == "other":
        if seen.whole:
            raise BadExportError(number, "a whole export has every event; of this one the digest alone is here.")
        digest = _hash(number, line, "digest")
        seen.others += 1
    else:
        digest = _digest(number, line, seen)
        if _check_proof(number, line):
            seen.proven += 1
        else:
            seen.erased += 1
    link = link_of(seen.head, digest)
    if not hmac.compare_digest(link, _hash(number, line, "link")):
        raise BadExportError(
            number, "its link does not follow from the one before it and its event: one of them was changed."
        )
    seen.position, seen.head = position, link


def _digest(number: int, line: dict[str, Any], seen: Verified) -> bytes:
    _hash(number, line, "commitment")
    covered = {name: _text(number, line, name) for name in (*_PUBLIC, "sealed_at")}
    whose = {"organization_id": seen.organization_id, "shop_id": seen.shop_id}
    return digest_of(covered | whose | {"position": line["position"]})


def _check_proof(number: int, line: dict[str, Any]) -> bool:
    """Whether there is a proof, which then opens the commitment."""
    proof = line["proof"]
    if proof is None:
        return False
    if not isinstance(proof, dict) or set(proof) != {"salt", "evidence"}:
        raise BadExportError(number, "a proof is a salt and the evidence, or null once they are erased.")
    evidence, salt = proof["evidence"], proof["salt"]
    if evidence is None:
        raise BadExportError(
            number, "its evidence could not be opened when this was exported: altered, or its key is gone."
        )
    if not isinstance(evidence, dict) or not all(isinstance(value, str) for value in evidence.values()):
        raise BadExportError(number, "evidence is an object of texts.")
    if not isinstance(salt, str) or not _SALT.fullmatch(salt):
        raise BadExportError(number, f"a salt is {SALT_BYTES} bytes in hex.")
    event_id, action, channel, at = (_text(number, line, name) for name in ("event_id", "action", "channel", "at"))
    expected = commitment_of(bytes.fromhex(salt), event_id, action, channel, at, evidence)
    if not hmac.compare_digest(expected, _hash(number, line, "commitment")):
        raise BadExportError(number, "salt and evidence do not open the commitment: one of them was changed.")
    return True


def _check_end(number: int, line: dict[str, Any], seen: Verified) -> None:
    if line["position"] != seen.position or type(line["position"]) is not int:
        raise BadExportError(
            number, f"the head is at position {_shortened(line['position'])}, but the chain ends at {seen.position}."
        )
    if not hmac.compare_digest(_hash(number, line, "head"), seen.head):
        raise BadExportError(number, "the head is not the last link.")


def _note(seen: Verified, heads: Collection[str]) -> None:
    if seen.head.hex() in heads:
        seen.noted[seen.head.hex()] = seen.position


def _hash(number: int, line: dict[str, Any], name: str) -> bytes:
    value = line[name]
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise BadExportError(number, f"{name} must be 64 hex digits.")
    return bytes.fromhex(value)


def _text(number: int, line: dict[str, Any], name: str) -> str:
    value = line[name]
    if not isinstance(value, str):
        raise BadExportError(number, f"{name} must be a text.")
    return value
