"""The SQL of room `tenants`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql

from cartwake.kit.db import Connection, row, rows
from cartwake.tenants.model import SmsConfig

CONFIG_FIELDS = tuple(SmsConfig.__dataclass_fields__)

INSERT_ORGANIZATION = """
INSERT INTO organizations (organization_id, name, plan, created_at) VALUES (%s, %s, %s, %s)
"""
INSERT_SHOP = """
INSERT INTO shops (organization_id, shop_id, name, default_country, default_locale, created_at)
VALUES (%(organization_id)s, %(shop_id)s, %(name)s, %(default_country)s, %(default_locale)s, %(created_at)s)
"""
INSERT_CONFIG = (
    sql.SQL(
        "INSERT INTO shop_sms_configs (organization_id, shop_id, updated_at, {fields})"
        " VALUES (%(organization_id)s, %(shop_id)s, %(now)s, {values})"
    )
    .format(
        fields=sql.SQL(", ").join(map(sql.Identifier, CONFIG_FIELDS)),
        values=sql.SQL(", ").join(map(sql.Placeholder, CONFIG_FIELDS)),
    )
    .as_string()
)
UPDATE_CONFIG = (
    sql.SQL(
        "UPDATE shop_sms_configs SET updated_at = %(now)s, {assignments}"
        " WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s"
    )
    .format(
        assignments=sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in CONFIG_FIELDS
        )
    )
    .as_string()
)
# What a merchant chose, and whether the operator paused the shop.
SELECT_CONFIG = (
    sql.SQL("SELECT {fields}, paused_at FROM shop_sms_configs WHERE organization_id = %s AND shop_id = %s")
    .format(fields=sql.SQL(", ").join(map(sql.Identifier, CONFIG_FIELDS)))
    .as_string()
)
# Locked by whoever changes some of it and keeps the rest.
LOCK_CONFIG = SELECT_CONFIG + " FOR UPDATE"
SELECT_SHOP = """
SELECT organization_id, shop_id, name, default_country, default_locale, created_at
FROM shops WHERE organization_id = %s AND shop_id = %s
"""
SELECT_SHOPS = """
SELECT organization_id, shop_id, name, default_country, default_locale, created_at
FROM shops WHERE organization_id = %(organization_id)s AND (%(before)s::uuid IS NULL OR shop_id < %(before)s)
ORDER BY shop_id DESC LIMIT %(limit)s
"""
SELECT_LOW_CREDITS_AT = """
SELECT max(low_credits_at) AS credits FROM shop_sms_configs WHERE organization_id = %s
"""
SELECT_ORGANIZATION = """
SELECT organization_id, name, plan, created_at FROM organizations WHERE organization_id = %s
"""
# Counted for the rows of the page alone, by the tenant keys that lead both indexes.
SELECT_ORGANIZATIONS = """
SELECT o.organization_id, o.name, o.plan, o.created_at,
  (SELECT count(*) FROM shops s WHERE s.organization_id = o.organization_id) AS shops,
  (SELECT count(*) FROM shop_sms_configs c
   WHERE c.organization_id = o.organization_id AND c.paused_at IS NOT NULL) AS paused_shops
FROM organizations o WHERE %(before)s::uuid IS NULL OR o.organization_id < %(before)s
ORDER BY o.organization_id DESC LIMIT %(limit)s
"""
SELECT_SHOP_SUMMARIES = """
SELECT s.organization_id, s.shop_id, s.name, s.default_country, s.default_locale, s.created_at, c.enabled, c.paused_at
FROM shops s JOIN shop_sms_configs c USING (organization_id, shop_id)
WHERE s.organization_id = %(organization_id)s AND (%(before)s::uuid IS NULL OR s.shop_id < %(before)s)
ORDER BY s.shop_id DESC LIMIT %(limit)s
"""
UPDATE_PLAN = """
UPDATE organizations SET plan = %s WHERE organization_id = %s RETURNING organization_id
"""
SELECT_PLANS = """
SELECT organization_id, plan FROM organizations WHERE plan <> 'FREE' ORDER BY organization_id
"""
INSERT_KEY = """
INSERT INTO api_keys (organization_id, shop_id, key_id, kind, secret_hash, created_at)
VALUES (%(organization_id)s, %(shop_id)s, %(key_id)s, %(kind)s, %(secret_hash)s, %(created_at)s)
"""
INSERT_OPERATOR_KEY = """
INSERT INTO operator_keys (key_id, secret_hash, created_at) VALUES (%(key_id)s, %(secret_hash)s, %(created_at)s)
"""
FIND_KEY = """
SELECT kind, key_id, organization_id, shop_id FROM find_api_key(%s, %s)
"""
NOTE_KEY_USE = """
SELECT note_key_use(%s, %s)
"""
COUNT_LIVE_KEYS = """
SELECT count(*) AS keys FROM api_keys
WHERE organization_id = %(organization_id)s AND shop_id IS NOT DISTINCT FROM %(shop_id)s AND kind = %(kind)s
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %(created_at)s)
"""
COUNT_LIVE_OPERATOR_KEYS = """
SELECT count(*) AS keys FROM operator_keys
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %(created_at)s)
"""
# A key that is about to expire already does not live longer for being rotated again.
EXPIRE_KEY = """
UPDATE api_keys SET expires_at = LEAST(expires_at, %(until)s)
WHERE organization_id = %(organization_id)s AND key_id = %(key_id)s AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > %(now)s)
RETURNING key_id, kind, organization_id, shop_id, created_at, expires_at, revoked_at, last_used_at
"""
EXPIRE_OPERATOR_KEY = """
UPDATE operator_keys SET expires_at = LEAST(expires_at, %(until)s)
WHERE key_id = %(key_id)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %(now)s)
RETURNING key_id, created_at, expires_at, revoked_at, last_used_at
"""
REVOKE_KEY = """
UPDATE api_keys SET revoked_at = COALESCE(revoked_at, %(now)s)
WHERE key_id = %(key_id)s AND (%(organization_id)s::uuid IS NULL OR organization_id = %(organization_id)s)
RETURNING key_id, kind, organization_id, shop_id, created_at, expires_at, revoked_at, last_used_at
"""
REVOKE_OPERATOR_KEY = """
UPDATE operator_keys SET revoked_at = COALESCE(revoked_at, %s) WHERE key_id = %s
RETURNING key_id, created_at, expires_at, revoked_at, last_used_at
"""
# Locked, so that of two revocations at once one sees the other.
LOCK_LASTING_OPERATOR_KEYS = """
SELECT key_id FROM operator_keys WHERE revoked_at IS NULL AND expires_at IS NULL ORDER BY key_id FOR UPDATE
"""
LIST_KEYS = """
SELECT key_id, kind, organization_id, shop_id, created_at, expires_at, revoked_at, last_used_at FROM api_keys
WHERE organization_id = %(organization_id)s AND (%(before)s::uuid IS NULL OR key_id < %(before)s)
ORDER BY key_id DESC LIMIT %(limit)s
"""
LIST_OPERATOR_KEYS = """
SELECT key_id, created_at, expires_at, revoked_at, last_used_at FROM operator_keys
WHERE (%(before)s::uuid IS NULL OR key_id < %(before)s)
ORDER BY key_id DESC LIMIT %(limit)s
"""
# One transaction at a time may have an idempotency key; whoever comes second does not wait.
LOCK_ANSWER = """
SELECT pg_try_advisory_xact_lock(%s) AS locked
"""
SELECT_ANSWER = """
SELECT request_hash, answer_sealed FROM idempotent_answers
WHERE organization_id = %(organization_id)s AND shop_id IS NOT DISTINCT FROM %(shop_id)s AND key_hash = %(key_hash)s
"""
SELECT_OPERATOR_ANSWER = """
SELECT request_hash, answer_sealed FROM operator_idempotent_answers WHERE key_hash = %(key_hash)s
"""
INSERT_ANSWER = """
INSERT INTO idempotent_answers (organization_id, shop_id, key_hash, request_hash, answer_sealed, created_at)
VALUES (%(organization_id)s, %(shop_id)s, %(key_hash)s, %(request_hash)s, %(answer_sealed)s, %(now)s)
"""
INSERT_OPERATOR_ANSWER = """
INSERT INTO operator_idempotent_answers (key_hash, request_hash, answer_sealed, created_at)
VALUES (%(key_hash)s, %(request_hash)s, %(answer_sealed)s, %(now)s)
"""
DELETE_ANSWERS = """
DELETE FROM idempotent_answers WHERE created_at < %s
"""
DELETE_OPERATOR_ANSWERS = """
DELETE FROM operator_idempotent_answers WHERE created_at < %s
"""
PAUSE_SHOP = """
UPDATE shop_sms_configs SET paused_at = COALESCE(paused_at, %s)
WHERE organization_id = %s AND shop_id = %s RETURNING shop_id
"""
RESUME_SHOP = """
UPDATE shop_sms_configs SET paused_at = NULL WHERE organization_id = %s AND shop_id = %s RETURNING shop_id
"""
THROW_SWITCH = """
INSERT INTO deployment_switches (name, thrown_at) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING
"""
RESET_SWITCH = """
DELETE FROM deployment_switches WHERE name = %s
"""
SELECT_SWITCHES = """
SELECT name, thrown_at FROM deployment_switches
"""
SELECT_PAUSED_SHOPS = """
SELECT organization_id, shop_id FROM shop_sms_configs WHERE paused_at IS NOT NULL
"""


async def insert_config(
    conn: Connection, now: datetime, organization_id: UUID, shop_id: UUID, config: SmsConfig
) -> None:
    await conn.execute(INSERT_CONFIG, _config_params(now, organization_id, shop_id, config))


async def update_config(
    conn: Connection, now: datetime, organization_id: UUID, shop_id: UUID, config: SmsConfig
) -> None:
    await conn.execute(UPDATE_CONFIG, _config_params(now, organization_id, shop_id, config))


async def select_config(
    conn: Connection, organization_id: UUID, shop_id: UUID, *, lock: bool = False
) -> dict[str, Any] | None:
    return await row(conn, LOCK_CONFIG if lock else SELECT_CONFIG, [organization_id, shop_id])


async def select_plans(conn: Connection) -> list[tuple[UUID, str]]:
    return [(found["organization_id"], found["plan"]) for found in await rows(conn, SELECT_PLANS)]


def _config_params(now: datetime, organization_id: UUID, shop_id: UUID, config: SmsConfig) -> dict[str, Any]:
    return {"now": now, "organization_id": organization_id, "shop_id": shop_id} | asdict(config)
