"""The Dockerfile, read: what each of its lines says, so that tests can do on this machine what a build would do."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@dataclass(frozen=True)
class Instruction:
    """One line of a Dockerfile, its continuations joined."""

    word: str
    text: str
    stage: int


def instructions() -> list[Instruction]:
    """Every instruction in order; `stage` counts the FROM lines."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word:
            continue
        stage += word == "FROM"
        found.append(Instruction(word, rest.strip(), stage))
    return found


def last(word: str) -> str:
    """What the last such instruction says: the one that holds for the image."""
    return [each.text for each in instructions() if each.word == word][-1]


def environment() -> dict[str, str]:
    """What the image sets in the environment."""
    return dict(pair.split("=", 1) for each in instructions() if each.word == "ENV" for pair in shlex.split(each.text))


def health_command() -> list[str]:
    """The words of the image's HEALTHCHECK."""
    _, _, command = last("HEALTHCHECK").partition("CMD ")
    words: list[str] = json.loads(command)
    return words
