"""The one table of checks, in the order in which they are told."""

from __future__ import annotations

from cartwake.doctor import carrier, database, public_address, queue, settings, work
from cartwake.doctor.model import Check

DATABASE, LOGINS, MIGRATIONS = "database", "logins", "migrations"
CARRIER, PUBLIC_ADDRESS = "carrier", "public address"

CHECKS: tuple[Check, ...] = (
    Check("settings", settings.look_at_settings),
    Check("secrets", settings.look_at_secrets),
    Check("disk", settings.look_at_disk),
    Check(DATABASE, database.look_at_database),
    Check("version", database.look_at_version, (DATABASE,)),
    Check("encoding", database.look_at_encoding, (DATABASE,)),
    Check("owner", database.look_at_owner, (DATABASE,)),
    Check(LOGINS, database.look_at_logins, (DATABASE,)),
    Check("rights", database.look_at_rights, (DATABASE,)),
    Check(MIGRATIONS, database.look_at_migrations, (DATABASE,)),
    Check("schema", database.look_at_schema, (MIGRATIONS,)),
    Check("tenant walls", database.look_at_walls, (MIGRATIONS,)),
    Check("database clock", database.look_at_database_clock, (DATABASE,)),
    Check("queue", queue.look_at_queue),
    Check(CARRIER, carrier.look_at_carrier),
    Check("carrier clock", carrier.look_at_carrier_clock, (CARRIER,)),
    Check("senders", carrier.look_at_senders, (CARRIER, LOGINS, MIGRATIONS)),
    Check(PUBLIC_ADDRESS, public_address.look_at_public_address),
    Check("webhooks", public_address.look_at_signature, (PUBLIC_ADDRESS,)),
    Check("periodic tasks", work.look_at_tasks, (LOGINS, MIGRATIONS)),
    Check("workers", work.look_at_workers, (LOGINS, MIGRATIONS)),
    Check("carrier events", work.look_at_events, (LOGINS, MIGRATIONS)),
    Check("consent chain", work.look_at_sealing, (LOGINS, MIGRATIONS)),
    Check("reply webhooks", work.look_at_reply_webhooks, (LOGINS, MIGRATIONS)),
    Check("credits", work.look_at_credits, (LOGINS, MIGRATIONS)),
    Check("reservations", work.look_at_reservations, (LOGINS, MIGRATIONS)),
    Check("kill switches", work.look_at_switches, (LOGINS, MIGRATIONS)),
)
