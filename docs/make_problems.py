"""Write docs/problems.md from the table that the deployment serves: `python docs/make_problems.py`."""

from __future__ import annotations

from pathlib import Path

from cartwake.web.reference.problems import known_problems

PAGE = Path(__file__).with_name("problems.md")

HEAD = """
# Problems

Made by `python docs/make_problems.py` from the table that a deployment serves at `/docs/problems`; a test compares
them, and holds the table against the code.

Every error is a problem document (RFC 9457). The last part of its `type` is the name under which it stands here.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD.strip()]
    for group, entries in known_problems().items():
        parts.append(f"## {group}")
        for each in entries:
            parts += [f"### {each.slug}", f"{each.status}. {each.means}", f"*What to do:* {each.remedy}"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
