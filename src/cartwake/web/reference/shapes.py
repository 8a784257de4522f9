"""From an OpenAPI document to what a page shows: operations by subject, fields in flat tables, an example of each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]

# What a field of that name looks like, where its schema has no example of its own.
SAMPLES: Json = {
    "account": "sms",
    "address": "+37061000001",
    "advice": "Nothing yet: the carrier is asked every minute, the credits stay reserved meanwhile.",
    "api_key": "cw_org_…",
    "attempts": 1,
    "attribution": "token",
    "available_credits": 50,
    "balance_after": 47,
    "body": "Is the blue one still there?",
    "built_in": "{shop}: your cart is waiting. {link} {opt_out}",
    "by": "'",
    "carrier_sid": "SM0198f0a0000070008000000000000001",
    "cart_value_minor": 5990,
    "changed_by": "api-key 0198f0a0-0000-7000-8000-000000000001",
    "character": "’",
    "checkout_url": "https://shop.example/checkout?cart=1",
    "country": "LT",
    "credits": 3,
    "currency": "EUR",
    "cycle_cap": 100,
    "default_country": "LT",
    "default_locale": "lt",
    "encoding": "GSM-7",
    "entry_no": 2,
    "entry_type": "SEND_RESERVE",
    "error_code": None,
    "external_id": "cart-1",
    "gate": "quiet_hours",
    "key": "cw_shop_…",
    "kind": "cart_recovery",
    "locale": "lt",
    "low": False,
    "meaning": "other",
    "name": "Lino Namai",
    "next": None,
    "note": None,
    "order_id": None,
    "outcome": "hold",
    "own": "{shop} kept your cart: {link} {opt_out}",
    "phone": "+370••••567",
    "phone_country": "LT",
    "phone_masked": "+370••••567",
    "phone_problem": None,
    "plainer": "'",
    "plan": "PRO",
    "position": 7,
    "province": None,
    "publishable_key": "cw_public_…",
    "reason": "outside_window",
    "recovered": False,
    "reference": None,
    "refusal": None,
    "reserved_credits": 0,
    "secret": "whsec_…",
    "secret_key": "cw_shop_…",
    "segments": 1,
    "segments_max": 2,
    "segments_per_s": 1.0,
    "sender": "+37061000001",
    "sent_to": "+37061000001",
    "step": 1,
    "suppressed": False,
    "template_version": None,
    "text": "Lino Namai: Jūsų krepšelis laukia. https://sms.example/r/…",
    "time_zone": "Europe/Vilnius",
    "units": 98,
    "url": "https://shop.example/replies",
    "value_minor": 5990,
    "version": 1,
    "window_closes": "19:00",
    "window_opens": "10:00",
}
TIME_SAMPLE = "2026-11-24T08:15:00Z"
ID_SAMPLE = "0198f0a0-0000-7000-8000-000000000001"
DEPTH_MAX = 6
# A larger maximum is what a database column holds, and nobody's business.
INTEGER_MAX = 2**31 - 1


@dataclass(frozen=True)
class Field:
    """A row of a table: a parameter, or a field by its path."""

    name: str
    kind: str
    required: bool
    limits: str
    description: str


@dataclass(frozen=True)
class Operation:
    """One operation, ready to be shown."""

    name: str
    method: str
    path: str
    summary: str
    text: str
    key: str
    parameters: list[Field]
    body: list[Field]
    body_example: str
    statuses: list[str]
    answer_name: str
    answer: list[Field]
    answer_example: str
    curl: str
    refusals: list[int]


@dataclass(frozen=True)
class Subject:
    """A tag with its operations."""

    name: str
    anchor: str
    text: str
    operations: list[Operation]


class Shapes:
    """Reads one document."""

    def __init__(self, document: Json) -> None:
        self._document = document

    def subjects(self) -> list[Subject]:
        """Everything, in the document's order of tags."""
        by_tag: dict[str, list[Operation]] = {}
        for path, operations in self._document["paths"].items():
            for method, operation in operations.items():
                by_tag.setdefault(operation["tags"][0], []).append(self._operation(method, path, operation))
        return [
            Subject(tag["name"], "about-" + tag["name"].replace(" ", "-"), tag["description"], by_tag[tag["name"]])
            for tag in self._document["tags"]
        ]

    def _operation(self, method: str, path: str, operation: Json) -> Operation:
        good = sorted(status for status in operation["responses"] if status < "300")
        answered = operation["responses"][good[0]]
        answer = _json_of(answered)
        form = _json_of(operation["requestBody"]) if "requestBody" in operation else None
        body_example = _pretty(self._sample(form, "")) if form else ""
        return Operation(
            name=operation["operationId"],
            method=method.upper(),
            path=path,
            summary=operation["summary"],
            text=_rest(operation["description"], operation["summary"]),
            key=self._key(operation),
            parameters=[self._parameter(each) for each in operation.get("parameters", ())],
            body=list(self._fields(form)) if form else [],
            body_example=body_example,
            statuses=[f"{status} {HTTPStatus(int(status)).phrase}" for status in good],
            answer_name=answer.get("$ref", "").rpartition("/")[2],
            answer=list(self._fields(answer)),
            answer_example=_pretty(self._sample(answer, "")) if answer else _other_example(answered),
            curl=_curl(method.upper(), path, body_example),
            refusals=sorted(int(each) for each in operation["responses"] if each >= "400"),
        )

    def _key(self, operation: Json) -> str:
        (scheme,) = operation["security"][0]
        words: str = self._document["components"]["securitySchemes"][scheme]["description"]
        return words.split(";", maxsplit=1)[0]

    def _parameter(self, parameter: Json) -> Field:
        schema, _ = self._plain(parameter["schema"])
        place = {"path": "in the path", "query": "query", "header": "header"}[parameter["in"]]
        return Field(
            parameter["name"],
            f"{self._kind(schema)}, {place}",
            parameter.get("required", False),
            _limits(schema),
            parameter.get("description", ""),
        )

    def _fields(self, schema: Json, prefix: str = "", depth: int = 0) -> Iterator[Field]:
        """The fields of an object and, dotted, of those inside it."""
        schema, _ = self._plain(schema)
        if depth > DEPTH_MAX:
            return
        required = schema.get("required", ())
        for name, each in schema.get("properties", {}).items():
            plain, nullable = self._plain(each)
            kind = self._kind(plain) + (" or null" if nullable else "")
            words = each.get("description") or plain.get("description", "")
            if plain.get("type") == "object" and not each.get("description"):
                words = ""  # that of the shape, which says no more than its name
            yield Field(prefix + name, kind, name in required, _limits(each | plain), words)
            inner, _ = self._plain(plain["items"]) if plain.get("type") == "array" else (plain, False)
            if inner.get("type") == "object":
                brackets = "[]" if plain.get("type") == "array" else ""
                yield from self._fields(inner, f"{prefix}{name}{brackets}.", depth + 1)

    def _plain(self, schema: Json) -> tuple[Json, bool]:
        """The schema behind references and behind "or null", and whether null will do."""
        nullable = False
        while True:
            if "$ref" in schema:
                schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            elif "anyOf" in schema:
                others = [each for each in schema["anyOf"] if each.get("type") != "null"]
                nullable = nullable or len(others) < len(schema["anyOf"])
                schema = others[0]
            else:
                return schema, nullable

    def _kind(self, schema: Json) -> str:
        if "enum" in schema:
            return "string"
        if schema.get("type") == "array":
            inner, _ = self._plain(schema["items"])
            return f"array of {self._kind(inner)}s"
        words = {"uuid": "UUID", "date-time": "time"}
        return words.get(schema.get("format", "")) or str(schema.get("type", "any"))

    def _sample(self, schema: Json, name: str, depth: int = 0) -> Any:
        plain, nullable = self._plain(schema)
        if "examples" in schema or "examples" in plain:
            return self._ordered((schema.get("examples") or plain["examples"])[0], plain)
        if plain.get("type") == "object":
            if depth > DEPTH_MAX:
                return {}
            return {each: self._sample(of, each, depth + 1) for each, of in plain.get("properties", {}).items()}
        if plain.get("type") == "array":
            return [self._sample(plain["items"], name, depth + 1)]
        return self._scalar(plain, name, nullable)

    def _ordered(self, example: Any, schema: Json) -> Any:
        """An example with its fields in the schema's order, which pydantic sorted away."""
        if not isinstance(example, dict):
            return example
        properties = schema.get("properties", {})
        return {
            name: self._ordered(example[name], self._plain(properties[name])[0])
            for name in properties
            if name in example
        }

    def _scalar(self, schema: Json, name: str, nullable: bool) -> Any:
        if "enum" in schema:
            return SAMPLES[name] if SAMPLES.get(name) in schema["enum"] else schema["enum"][0]
        if schema.get("format") in ("uuid", "date-time") and not (
            nullable and name not in ("shop_id", "due_at", "changed_at")
        ):
            return ID_SAMPLE if schema["format"] == "uuid" else TIME_SAMPLE
        if name in SAMPLES and schema.get("format") is None:
            return SAMPLES[name]
        if nullable:
            return None
        if "default" in schema:
            return schema["default"]
        return {"string": "…", "integer": 0, "number": 0, "boolean": True}.get(str(schema.get("type")))


def _rest(text: str, summary: str) -> str:
    """A description without the sentence that is its heading already."""
    flat = text.replace("\n", " ", summary.count(" "))
    return flat[len(summary) :].removeprefix(".").strip() if flat.startswith(summary) else text


def _json_of(part: Json) -> Json:
    """The schema of a JSON body; none where there is none (204) or another kind of file."""
    schema: Json = part.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _other_example(part: Json) -> str:
    """What another kind of file looks like."""
    return next((str(each["example"]) for each in part.get("content", {}).values() if "example" in each), "")


def _limits(schema: Json) -> str:
    """What a value must be, in words."""
    words = []
    if "enum" in schema:
        words.append("one of " + ", ".join(map(str, schema["enum"])))
    if "examples" in schema and schema.get("type") == "string":
        words.append(f"like {schema['examples'][0]}")
    words += _range(schema)
    if "maxLength" in schema:
        least = f"{schema['minLength']} to " if schema.get("minLength") else "at most "
        words.append(f"{least}{schema['maxLength']} characters")
    if "default" in schema and schema["default"] not in (None, {}, []):
        words.append(f"{json.dumps(schema['default'])} unless given")
    return "; ".join(words)


def _range(schema: Json) -> list[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    more_than = schema.get("exclusiveMinimum")
    if more_than is not None:
        return [f"more than {more_than:g}" + (f", up to {_number(high)}" if high is not None else "")]
    if low is not None and high is not None and high < INTEGER_MAX:
        return [f"{_number(low)} to {_number(high)}"]
    return [f"{_number(low)} or more"] if low is not None else []


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")  # a narrow space is no decimal point anywhere


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _curl(method: str, path: str, body: str) -> str:
    """What to type. Ids are shell variables, so that a line can be pasted and works."""
    address = path.replace("{external_id}", "cart-1").replace("{locale}", "en")
    address = re.sub(r"\{(\w+?)(_id)?\}", lambda found: "$" + found[1].upper(), address)
    lines = [
        f'curl {"" if method == "GET" else f"-X {method} "}"$CARTWAKE{address}"',
        '-H "Authorization: Bearer $KEY"',
    ]
    if method == "POST":
        lines.append('-H "Idempotency-Key: $(uuidgen)"')
    if body:
        quoted = body.replace("'", "'\\''")
        lines += ['-H "Content-Type: application/json"', f"-d '{quoted}'"]
    return " \\\n  ".join(lines)
