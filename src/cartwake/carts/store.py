"""The SQL of room `carts`."""

from __future__ import annotations

from psycopg import sql

from cartwake.carts.model import SESSION_FIELDS

# Column lists are composed once, here; what is run is plain text.
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, SESSION_FIELDS))
_S_COLUMNS = sql.SQL(", ").join(sql.Identifier("s", name) for name in SESSION_FIELDS)

SELECT_SESSION = (
    sql.SQL(
        "SELECT {columns} FROM checkout_sessions"
        " WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND external_id = %(external_id)s"
    )
    .format(columns=_COLUMNS)
    .as_string()
)

# Locked against dispatch, which share-locks the sessions of its batch: whoever comes first, the other sees it.
# `NO KEY`, here and below: whoever writes down a decision about a session need not wait for its lock.
LOCK_SESSION = SELECT_SESSION + " FOR NO KEY UPDATE"

# First sight of a checkout, or news of a known one. Silence (NULL) keeps what is known. What is older than
# the last activity changes nothing; neither does anything after an order or an expiry.
UPSERT_ACTIVITY = (
    sql.SQL("""
INSERT INTO checkout_sessions AS s (
  organization_id, shop_id, session_id, external_id, state,
  phone_sealed, phone_hash, phone_country, country, province, time_zone, locale,
  cart_value_minor, currency, checkout_url_sealed,
  last_activity_at, scan_at, stale_at, traceparent, created_at, updated_at)
VALUES (
  %(organization_id)s, %(shop_id)s, %(session_id)s, %(external_id)s, 'open',
  %(phone_sealed)s, %(phone_hash)s, %(phone_country)s, %(country)s, %(province)s, %(time_zone)s, %(locale)s,
  %(cart_value_minor)s, %(currency)s, %(checkout_url_sealed)s,
  %(occurred_at)s, %(scan_at)s, %(stale_at)s, %(traceparent)s, %(now)s, %(now)s)
ON CONFLICT (organization_id, shop_id, external_id) DO UPDATE SET
  state = CASE WHEN s.state = 'abandoned' AND EXCLUDED.last_activity_at > s.last_activity_at
          THEN 'open' ELSE s.state END,
  phone_sealed = COALESCE(EXCLUDED.phone_sealed, s.phone_sealed),
  phone_hash = COALESCE(EXCLUDED.phone_hash, s.phone_hash),
  phone_country = COALESCE(EXCLUDED.phone_country, s.phone_country),
  country = COALESCE(EXCLUDED.country, s.country),
  province = COALESCE(EXCLUDED.province, s.province),
  time_zone = COALESCE(EXCLUDED.time_zone, s.time_zone),
  locale = COALESCE(EXCLUDED.locale, s.locale),
  cart_value_minor = COALESCE(EXCLUDED.cart_value_minor, s.cart_value_minor),
  currency = COALESCE(EXCLUDED.currency, s.currency),
  checkout_url_sealed = COALESCE(EXCLUDED.checkout_url_sealed, s.checkout_url_sealed),
  last_activity_at = EXCLUDED.last_activity_at,
  scan_at = CASE WHEN s.state = 'payment_pending' THEN NULL ELSE EXCLUDED.scan_at END,
  stale_at = EXCLUDED.stale_at,
  traceparent = EXCLUDED.traceparent,
  updated_at = EXCLUDED.updated_at
WHERE s.state NOT IN ('completed', 'expired') AND EXCLUDED.last_activity_at >= s.last_activity_at
RETURNING {columns}
""")
    .format(columns=_S_COLUMNS)
    .as_string()
)

# For which phone the box was ticked in this session; NULL when it was unticked.
SET_CONSENTED_PHONE = """
UPDATE checkout_sessions SET consented_phone = %s, updated_at = %s
WHERE organization_id = %s AND shop_id = %s AND session_id = %s
"""

# Paying is activity: the cart is as young as it.
BEGIN_PAYMENT = (
    sql.SQL("""
UPDATE checkout_sessions AS s SET
  state = 'payment_pending', payment_until = %(payment_until)s, scan_at = NULL, stale_at = %(stale_at)s,
  last_activity_at = GREATEST(last_activity_at, %(occurred_at)s), updated_at = %(now)s
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND session_id = %(session_id)s
RETURNING {columns}
""")
    .format(columns=_S_COLUMNS)
    .as_string()
)

# The payment came to nothing; trying it was activity.
END_PAYMENT = (
    sql.SQL("""
UPDATE checkout_sessions AS s SET
  state = 'open', payment_until = NULL, scan_at = %(scan_at)s, stale_at = %(stale_at)s,
  last_activity_at = GREATEST(last_activity_at, %(occurred_at)s), updated_at = %(now)s
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND session_id = %(session_id)s
RETURNING {columns}
""")
    .format(columns=_S_COLUMNS)
    .as_string()
)

COMPLETE = (
    sql.SQL("""
UPDATE checkout_sessions AS s SET
  state = 'completed', completed_at = %(completed_at)s, order_id = %(order_id)s,
  order_value_minor = %(order_value_minor)s, order_currency = %(order_currency)s,
  attributed_to = %(attributed_to)s, attribution = %(attribution)s,
  payment_until = NULL, scan_at = NULL, refusal = NULL, updated_at = %(now)s
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND session_id = %(session_id)s
RETURNING {columns}
""")
    .format(columns=_S_COLUMNS)
    .as_string()
)

# Sessions whose time to be asked has come, claimed so that any number of schedulers share them. What became
# stale before anybody asked is left to the sweep.
CLAIM_IDLE = (
    sql.SQL("""
WITH due AS (
  SELECT organization_id, shop_id, session_id FROM checkout_sessions
  WHERE scan_at <= %(now)s AND stale_at > %(now)s AND state = ANY(%(from_states)s)
  ORDER BY scan_at LIMIT %(limit)s
  FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE checkout_sessions AS s
SET state = 'abandoned', abandoned_at = last_activity_at, scan_at = NULL, updated_at = %(now)s
FROM due WHERE (s.organization_id, s.shop_id, s.session_id) = (due.organization_id, due.shop_id, due.session_id)
RETURNING {columns}
""")
    .format(columns=_S_COLUMNS)
    .as_string()
)

# The e-mail channel's cue: once per session.
INSERT_EMAIL_DUE = """
INSERT INTO cart_events (organization_id, shop_id, event_id, session_id, kind, due_at, at)
SELECT organization_id, shop_id, event_id, session_id, 'email_due', due_at, %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(events)s::uuid[], %(sessions)s::uuid[],
            %(due_ats)s::timestamptz[]) AS e (organization_id, shop_id, event_id, session_id, due_at)
ON CONFLICT (organization_id, shop_id, session_id, kind) DO NOTHING
RETURNING session_id, due_at
"""

# Why each session was refused; NULL for those that were scheduled.
SET_REFUSALS = """
UPDATE checkout_sessions s SET refusal = r.refusal, updated_at = %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(sessions)s::uuid[], %(refusals)s::text[])
  AS r (organization_id, shop_id, session_id, refusal)
WHERE (s.organization_id, s.shop_id, s.session_id) = (r.organization_id, r.shop_id, r.session_id)
"""

# A new fact is about to be committed. A scan that is asking just now read the old one: this waits for its
# refusals. A scan that comes before the commit passes these sessions over, and asks in its next round.
MEET_SCAN = """
SELECT FROM checkout_sessions
WHERE organization_id = %(organization_id)s AND shop_id = COALESCE(%(shop_id)s, shop_id)
  AND scan_at <= %(soon)s AND state IN ('open', 'abandoned')
ORDER BY organization_id, shop_id, session_id
FOR NO KEY UPDATE
"""
# What was refused for want of that fact is asked again at the next scan, unless it is stale.
ASK_AGAIN = """
UPDATE checkout_sessions s SET scan_at = %(now)s, updated_at = %(now)s
FROM (
  SELECT organization_id, shop_id, session_id FROM checkout_sessions
  WHERE organization_id = %(organization_id)s AND shop_id = COALESCE(%(shop_id)s, shop_id)
    AND refusal = ANY(%(refusals)s) AND state = 'abandoned' AND stale_at > %(now)s
  ORDER BY organization_id, shop_id, session_id
  FOR NO KEY UPDATE
) AS a
WHERE (s.organization_id, s.shop_id, s.session_id) = (a.organization_id, a.shop_id, a.session_id)
"""

# A phone's owner wrote START: the shop's carts that were refused for want of consent are asked again.
ASK_AGAIN_FOR_PHONE = """
UPDATE checkout_sessions s SET scan_at = %(now)s, updated_at = %(now)s
FROM (
  SELECT organization_id, shop_id, session_id FROM checkout_sessions
  WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND phone_hash = %(phone_hash)s
    AND refusal = 'no_consent' AND state = 'abandoned' AND stale_at > %(now)s
  ORDER BY organization_id, shop_id, session_id
  FOR NO KEY UPDATE
) AS a
WHERE (s.organization_id, s.shop_id, s.session_id) = (a.organization_id, a.shop_id, a.session_id)
"""

EXPIRE = """
WITH old AS (
  SELECT organization_id, shop_id, session_id FROM checkout_sessions
  WHERE stale_at <= %(now)s AND state IN ('open', 'abandoned')
  ORDER BY stale_at LIMIT %(limit)s
  FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE checkout_sessions s SET state = 'expired', scan_at = NULL, updated_at = %(now)s
FROM old WHERE (s.organization_id, s.shop_id, s.session_id) = (old.organization_id, old.shop_id, old.session_id)
RETURNING s.session_id
"""

# A payment that never settled no longer counts: the cart is what it was before.
TIME_OUT_PAYMENTS = """
WITH over AS (
  SELECT organization_id, shop_id, session_id FROM checkout_sessions
  WHERE payment_until <= %(now)s AND state = 'payment_pending'
  ORDER BY payment_until LIMIT %(limit)s
  FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE checkout_sessions s SET state = 'open', payment_until = NULL, scan_at = %(now)s, updated_at = %(now)s
FROM over WHERE (s.organization_id, s.shop_id, s.session_id) = (over.organization_id, over.shop_id, over.session_id)
RETURNING s.session_id
"""

# The sessions of a claim's messages, share-locked until the claim commits. One that is being written just now
# is passed over: its message stays due and is claimed in the next round, with the news.
READ_LOCKED = (
    sql.SQL("""
SELECT {columns} FROM checkout_sessions s
JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(sessions)s::uuid[])
  AS k (organization_id, shop_id, session_id) USING (organization_id, shop_id, session_id)
FOR SHARE OF s SKIP LOCKED
""")
    .format(columns=_S_COLUMNS)
    .as_string()
)

INSERT_LINKS = """
INSERT INTO short_links (organization_id, shop_id, link_id, session_id, message_id, expires_at, created_at)
SELECT organization_id, shop_id, link_id, session_id, message_id, expires_at, %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(links)s::bytea[], %(sessions)s::uuid[],
            %(messages)s::uuid[], %(expiries)s::timestamptz[])
  AS l (organization_id, shop_id, link_id, session_id, message_id, expires_at)
ON CONFLICT (organization_id, shop_id, message_id) DO UPDATE SET expires_at = EXCLUDED.expires_at
"""
# Whose link is it? Ids only, before any tenant is known.
FIND_LINK = """
SELECT organization_id, shop_id FROM find_short_link(%s)
"""
SELECT_LINK = """
SELECT l.session_id, l.message_id, l.expires_at, s.checkout_url_sealed
FROM short_links l JOIN checkout_sessions s USING (organization_id, shop_id, session_id)
WHERE l.link_id = %s
"""
RECORD_CLICK = """
UPDATE short_links SET clicks = clicks + 1, first_clicked_at = COALESCE(first_clicked_at, %(now)s),
  last_clicked_at = %(now)s
WHERE link_id = %(link_id)s
"""
# The message whose link was tapped before the order, within the shop's attribution window. The first tap and the last
# are known: a shopper may tap again after the order, and before its news comes.
LAST_CLICK = """
SELECT message_id FROM short_links
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND session_id = %(session_id)s
  AND (last_clicked_at <= %(completed_at)s AND last_clicked_at > %(since)s
       OR first_clicked_at <= %(completed_at)s AND first_clicked_at > %(since)s)
ORDER BY last_clicked_at DESC LIMIT 1
"""
# Whether a text with this link really went out for this session.
LINK_OF_MESSAGE = """
SELECT link_id FROM short_links
WHERE organization_id = %s AND shop_id = %s AND session_id = %s AND message_id = %s
"""
