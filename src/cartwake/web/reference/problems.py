"""What every problem means: `problems.toml`, read once."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cartwake.web.problems import title_of


@dataclass(frozen=True)
class KnownProblem:
    """One slug, explained."""

    slug: str
    title: str
    status: int
    group: str
    means: str
    remedy: str


@cache
def known_problems() -> dict[str, list[KnownProblem]]:
    """Every problem by its group, in the order of the file."""
    grouped: dict[str, list[KnownProblem]] = {}
    table = tomllib.loads(files(__package__).joinpath("problems.toml").read_text("utf-8"))
    for slug, each in table.items():
        grouped.setdefault(each["group"], []).append(KnownProblem(slug=slug, title=title_of(slug), **each))
    return grouped


def is_known(slug: str) -> bool:
    """Whether the slug is one of ours."""
    return any(each.slug == slug for group in known_problems().values() for each in group)
