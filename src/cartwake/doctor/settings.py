"""What can be seen without leaving the process: the settings, their secrets, and the disk."""

from __future__ import annotations

import os
import shutil
from urllib.parse import urlsplit

from cartwake.doctor.model import Finding, Patient, bad, ok, skipped, warn
from cartwake.kit.config import not_for_production
from cartwake.kit.config_listing import unknown_variables
from cartwake.kit.embedded import has_cluster, home_of

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

# PostgreSQL stops with a panic when its journal cannot grow: by 16 MB at a time, and up to 1 GB between checkpoints.
DISK_LOW_BYTES, DISK_FULL_BYTES = 2 * 2**30, 256 * 2**20


def is_local(url: str) -> bool:
    """Whether only this machine can reach an address."""
    return (urlsplit(url).hostname or "") in LOOPBACK_HOSTS


async def look_at_settings(patient: Patient) -> Finding:
    """They could be read, or we were not here; is any variable one that nobody reads?"""
    unknown = unknown_variables(os.environ)
    if unknown:
        told = "; ".join(f"{name} ({advice})" for name, advice in unknown.items())
        return warn(f"not read by anybody: {told}", "Correct or unset what is misspelt.")
    count = len(patient.settings.model_fields_set)
    return ok(f"{count} set, the others have their defaults (`cartwake config`)")


async def look_at_secrets(patient: Patient) -> Finding:
    """Development secrets are public; they are for a machine that nobody else reaches."""
    settings = patient.settings
    names = [line.split(":")[0] for line in not_for_production(settings) if "PUBLIC_URL" not in line]
    if not names:
        return ok("no development secret is in use")
    said = f"development secrets are in use: {', '.join(names)}"
    mend = "Set them, or their _FILE; then CARTWAKE_ENVIRONMENT=production, which refuses to start without."
    if is_local(settings.public_url):
        return warn(f"{said}; nobody but this machine reaches this deployment", mend)
    return bad(f"{said}, and others can reach this deployment", mend)


async def look_at_disk(patient: Patient) -> Finding:
    """Room for the embedded PostgreSQL to grow."""
    home = home_of(patient.settings)
    if not has_cluster(home):
        return skipped("no embedded PostgreSQL is on this machine")
    free = shutil.disk_usage(home).free
    said = f"{free / 2**30:.1f} GB free for {home}"
    if free >= DISK_LOW_BYTES:
        return ok(said)
    mend = "Free some space, or move the folder to a larger disk and set CARTWAKE_DATA_DIR."
    return bad(said, mend) if free < DISK_FULL_BYTES else warn(said, mend)
