"""What people and machines read."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence

from cartwake.doctor.examine import Examined
from cartwake.doctor.model import Verdict

VERDICT_WIDTH, NAME_WIDTH = 6, 16
LINE_WIDTH = 118


def for_people(examined: Sequence[Examined]) -> str:
    """A line for each check, below it what to do where something is to be done, and a last line that counts."""
    indent = " " * (VERDICT_WIDTH + NAME_WIDTH)
    lines = []
    for each in examined:
        finding = each.finding
        lines.append(f"{finding.verdict:<{VERDICT_WIDTH}}{each.check.name:<{NAME_WIDTH}}{finding.said}")
        if finding.mend:
            wrapped = textwrap.wrap(finding.mend, LINE_WIDTH - len(indent) - 3, break_on_hyphens=False)
            lines += [indent + ("-> " if number == 0 else "   ") + line for number, line in enumerate(wrapped)]
    counts = Counter(each.finding.verdict for each in examined)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    return "\n".join([*lines, "", f"{len(examined)} checks: {told}."])


def for_machines(examined: Sequence[Examined]) -> str:
    """The same as JSON: `verdict` is the worst of all; `mend` is empty where nothing is to be done."""
    checks = [
        {
            "check": each.check.name,
            "verdict": str(each.finding.verdict).lower(),
            "said": each.finding.said,
            "mend": each.finding.mend,
        }
        for each in examined
    ]
    return json.dumps({"verdict": worst(examined).lower(), "checks": checks}, ensure_ascii=False, indent=2)


def worst(examined: Sequence[Examined]) -> Verdict:
    """The worst verdict; what was skipped is no worse than what it needed."""
    found = {each.finding.verdict for each in examined}
    return next(verdict for verdict in (Verdict.FAIL, Verdict.WARN, Verdict.OK) if verdict in found)
