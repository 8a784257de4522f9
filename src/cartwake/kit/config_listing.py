"""The settings as people see them: what each means and takes, where its value is from, and names that are none."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from cartwake.kit.config import FILE_SUFFIX, PREFIX, Settings, secret_settings, variable
from cartwake.kit.rates import Rate

# The unit of a number, by how its name ends.
UNITS = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes", "_credits": "credits"}

# What a setting of such a type takes, in words.
WORDS = {bool: "true or false", Path: "folder", Rate: "requests per minute/at once, or off"}

LOGIN_IN_ADDRESS = re.compile(r"//[^/]*@")


@dataclass(frozen=True)
class Listed:
    """One setting."""

    name: str
    variable: str
    meaning: str
    takes: str  # the values it may have, with their unit
    default: str
    secret: bool


def list_settings() -> list[Listed]:
    """Every setting, in the order of `Settings`."""
    return [
        Listed(
            name, variable(name), field.description or "", _takes(name, field), _default(name, field), _is_secret(name)
        )
        for name, field in Settings.model_fields.items()
    ]


def origin(setting: Listed, environ: Mapping[str, str]) -> str:
    """Where the setting's value is from; a secret's value is never told."""
    present = {name.upper(): value for name, value in environ.items()}
    if setting.secret and setting.variable + FILE_SUFFIX in present:
        return f"set by the file {present[setting.variable + FILE_SUFFIX]}"
    if setting.variable not in present:
        return f"default: {setting.default}"
    if setting.secret:
        return "set by the environment"
    # An address with a password in it is refused, and yet must not be shown.
    return f"set by the environment: {LOGIN_IN_ADDRESS.sub('//…@', present[setting.variable])}"


def unknown_variables(names: Iterable[str]) -> dict[str, str]:
    """The `CARTWAKE_…` variables among `names` that nobody reads, each with what to do about it."""
    known = {each.variable for each in list_settings()}
    files = {each.variable + FILE_SUFFIX for each in list_settings() if each.secret}
    unknown = {}
    for name in sorted(names):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known | files:
            continue
        words = {each.removeprefix(PREFIX): each for each in sorted(known | files)}
        nearest = difflib.get_close_matches(upper.removeprefix(PREFIX), words, n=1, cutoff=0.7)
        if upper.removesuffix(FILE_SUFFIX) in known:
            unknown[name] = f"only secrets are read from files: set {upper.removesuffix(FILE_SUFFIX)}"
        elif nearest:
            unknown[name] = f"did you mean {words[nearest[0]]}?"
        else:
            unknown[name] = "`cartwake config` lists those that are read"
    return unknown


def _is_secret(name: str) -> bool:
    return name in secret_settings()


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return "none"
    if _is_secret(name):
        return "a development secret"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _takes(name: str, field: FieldInfo) -> str:
    if _is_secret(name):
        return "secret"
    if choices := _choices(field.annotation):
        listed = isinstance(field.default, tuple)
        return ("any of " if listed else "") + ", ".join(choices)
    kind = _without_none(field.annotation)
    if kind in WORDS:
        return WORDS[kind]
    if kind in (int, float):
        unit = (field.json_schema_extra or {}).get("unit") if not callable(field.json_schema_extra) else None
        unit = unit or next((unit for end, unit in UNITS.items() if name.endswith(end)), None)
        return " ".join(part for part in (str(unit or ""), _range(field)) if part) or "number"
    if name.endswith(("_url", "_base")):
        return "http or https address"
    return "text"


def _range(field: FieldInfo) -> str:
    words = []
    for bound in field.metadata:
        words += [f"from {bound.ge:g}"] if isinstance(bound, Ge) else []
        words += [f"more than {bound.gt:g}"] if isinstance(bound, Gt) else []
        words += [f"to {bound.le:g}"] if isinstance(bound, Le) else []
        words += [f"less than {bound.lt:g}"] if isinstance(bound, Lt) else []
    return " ".join(words)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(each for each in get_args(annotation) if each is not type(None))
    return annotation


def _choices(annotation: Any) -> list[str]:
    """The words of the `Literal` somewhere in a type."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]
