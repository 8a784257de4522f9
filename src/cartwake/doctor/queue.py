"""Does the Redis or Valkey answer that keeps the times, and does it keep them?"""

from __future__ import annotations

from cartwake.doctor.model import Finding, Patient, bad, ok, warn
from cartwake.jobs.queue_check import check_queue


async def look_at_queue(patient: Patient) -> Finding:
    """What keeps the times of texts, and that it can."""
    if patient.settings.queue_url is None:
        return ok("PostgreSQL keeps the times of texts")
    found = await check_queue(patient.settings)
    if not found:
        return ok("the queue answers, takes writes, keeps its jobs over a restart and evicts none")
    # Only what keeps it from working, if anything does: the rest can be asked again.
    worst = [each for each in found if each.level == "error"] or found
    said, mend = " ".join(each.problem for each in worst), " ".join(each.advice for each in worst)
    return (bad if worst[0].level == "error" else warn)(said, mend)
