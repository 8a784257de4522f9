"""Draw docs/states.md from the transition tables: `python docs/make_states.py`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from cartwake.carts.model import TRANSITIONS as SESSIONS
from cartwake.messages.model import TRANSITIONS as MESSAGES

S = TypeVar("S", bound=enum.StrEnum)
PAGE = Path(__file__).with_name("states.md")


def table(transitions: Mapping[S, frozenset[S]]) -> str:
    """The same for those who see no diagram."""
    lines = ["| from | to |", "|---|---|"]
    lines += [f"| {state} | {', '.join(sorted(targets)) or '(the end)'} |" for state, targets in transitions.items()]
    return "\n".join(lines)


def diagram(start: str, transitions: Mapping[S, frozenset[S]]) -> str:
    """One Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    for state, targets in transitions.items():
        lines += [f"    {state} --> {target}" for target in sorted(targets)]
        if not targets:
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```"])


def page() -> str:
    """The whole page."""
    return f"""# States

Drawn by `python docs/make_states.py` from the tables that the code itself obeys; a test compares them.

## Checkout session

{diagram("open", SESSIONS)}

{table(SESSIONS)}

Recovered means completed with an attribution.

## Message

{diagram("scheduled", MESSAGES)}

{table(MESSAGES)}

Receipts apply by rank: a late `sent` after `delivered` leads nowhere. Nothing is resent after an acceptance or an
`unknown`.
"""


if __name__ == "__main__":
    PAGE.write_text(page())
