"""The SQL of room `outbox`. Whoever takes locks here has taken all others before."""

from __future__ import annotations

SELECT_WEBHOOK = """
SELECT url_sealed, former_secret_until, failing_since, failing_with, created_at, updated_at FROM shop_webhooks
WHERE organization_id = %s AND shop_id = %s
"""
# The first address comes with a secret, later ones keep the one there is.
SAVE_WEBHOOK = """
INSERT INTO shop_webhooks AS w (organization_id, shop_id, url_sealed, secret_sealed, created_at, updated_at)
VALUES (%(organization_id)s, %(shop_id)s, %(url)s, %(secret)s, %(now)s, %(now)s)
ON CONFLICT (organization_id, shop_id) DO UPDATE SET
  url_sealed = EXCLUDED.url_sealed, updated_at = EXCLUDED.updated_at, failing_since = NULL, failing_with = NULL,
  next_due_at = CASE WHEN w.next_due_at IS NOT NULL THEN EXCLUDED.updated_at END
RETURNING w.secret_sealed = %(secret)s AS is_new
"""
# Whatever waits goes to the new address at once.
HURRY = """
UPDATE outbox_events SET due_at = LEAST(due_at, %(now)s)
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND state = 'waiting'
"""
CHANGE_KEY = """
UPDATE shop_webhooks SET former_secret_sealed = secret_sealed, former_secret_until = %(both_until)s,
  secret_sealed = %(secret)s, updated_at = %(now)s
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s RETURNING shop_id
"""
REMOVE_WEBHOOK = """
DELETE FROM shop_webhooks WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s RETURNING shop_id
"""
CANCEL_WAITING = """
UPDATE outbox_events SET state = 'cancelled', payload_sealed = NULL, ended_at = %(now)s
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND state = 'waiting'
"""

# Shops that listen, their rows locked in one order; the others are not told.
LOCK_LISTENING = """
SELECT w.organization_id, w.shop_id FROM shop_webhooks w
JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[]) AS k (organization_id, shop_id)
  USING (organization_id, shop_id)
ORDER BY w.organization_id, w.shop_id FOR UPDATE OF w
"""
INSERT_EVENTS = """
INSERT INTO outbox_events (organization_id, shop_id, event_id, kind, payload_sealed, state, attempts, due_at,
                           created_at)
SELECT organization_id, shop_id, event_id, kind, payload, 'waiting', 0, %(now)s, %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(events)s::uuid[], %(kinds)s::text[], %(payloads)s::bytea[])
  AS e (organization_id, shop_id, event_id, kind, payload)
ON CONFLICT (organization_id, shop_id, event_id) DO NOTHING
"""
ADVANCE = """
UPDATE shop_webhooks w SET next_due_at = LEAST(COALESCE(w.next_due_at, %(now)s), %(now)s)
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[]) AS k (organization_id, shop_id)
WHERE (w.organization_id, w.shop_id) = (k.organization_id, k.shop_id)
"""

# Shops with something due that nobody works on, the longest due first.
LEASE_SHOPS = """
UPDATE shop_webhooks w SET lease_until = %(lease_until)s
FROM (
  SELECT organization_id, shop_id FROM shop_webhooks
  WHERE next_due_at <= %(now)s AND (lease_until IS NULL OR lease_until <= %(now)s)
  ORDER BY next_due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AS d
WHERE (w.organization_id, w.shop_id) = (d.organization_id, d.shop_id)
RETURNING w.organization_id, w.shop_id, w.url_sealed, w.secret_sealed,
          CASE WHEN w.former_secret_until > %(now)s THEN w.former_secret_sealed END AS former_secret_sealed
"""
# Each leased shop's due events, the longest due first, no more than a lease has time for.
TAKE_DUE = """
SELECT e.organization_id, e.shop_id, e.event_id, e.payload_sealed, e.attempts, e.created_at
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[]) AS k (organization_id, shop_id)
CROSS JOIN LATERAL (
  SELECT * FROM outbox_events e
  WHERE e.organization_id = k.organization_id AND e.shop_id = k.shop_id AND e.state = 'waiting' AND e.due_at <= %(now)s
  ORDER BY e.due_at, e.event_id LIMIT %(share)s
) AS e
"""
LOCK_WEBHOOK = """
SELECT FROM shop_webhooks WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s FOR UPDATE
"""
# What came of a round. An event that the shop cancelled meanwhile stays cancelled, unless it was heard.
RECORD_TRIES = """
UPDATE outbox_events e SET
  state = t.state, attempts = e.attempts + 1, due_at = t.due_at, last_status = t.status, last_error = t.error,
  payload_sealed = CASE WHEN t.state = 'waiting' THEN e.payload_sealed END,
  ended_at = CASE WHEN t.state <> 'waiting' THEN %(now)s END
FROM unnest(%(events)s::uuid[], %(states)s::text[], %(due_ats)s::timestamptz[], %(statuses)s::smallint[],
            %(errors)s::text[]) AS t (event_id, state, due_at, status, error)
WHERE e.organization_id = %(organization_id)s AND e.shop_id = %(shop_id)s AND e.event_id = t.event_id
  AND (e.state = 'waiting' OR e.state = 'cancelled' AND t.state = 'delivered')
"""
# The shop's next time, no earlier than `pause_until`. A lease that lapsed meanwhile may be another worker's by now.
END_ROUND = """
UPDATE shop_webhooks w SET
  next_due_at = GREATEST(n.due_at, CASE WHEN n.due_at IS NOT NULL THEN %(pause_until)s::timestamptz END),
  lease_until = CASE WHEN w.lease_until = %(lease_until)s THEN NULL ELSE w.lease_until END,
  failing_since = CASE WHEN NOT %(tried)s THEN w.failing_since
                       WHEN %(failing_with)s::text IS NOT NULL THEN COALESCE(w.failing_since, %(now)s) END,
  failing_with = CASE WHEN NOT %(tried)s THEN w.failing_with ELSE %(failing_with)s::text END
FROM (
  SELECT min(e.due_at) AS due_at FROM outbox_events e
  WHERE e.organization_id = %(organization_id)s AND e.shop_id = %(shop_id)s AND e.state = 'waiting'
) AS n
WHERE w.organization_id = %(organization_id)s AND w.shop_id = %(shop_id)s
"""
NEXT_DUE = """
SELECT min(GREATEST(next_due_at, lease_until)) AS next_due_at FROM shop_webhooks WHERE next_due_at IS NOT NULL
"""
SELECT_FAILING = """
SELECT organization_id, shop_id, failing_since, failing_with FROM shop_webhooks
WHERE failing_since <= %(before)s ORDER BY failing_since, organization_id, shop_id LIMIT %(limit)s
"""
SELECT_DELIVERIES = """
SELECT event_id, state, attempts, due_at, last_status, last_error, ended_at FROM outbox_events
WHERE organization_id = %s AND shop_id = %s AND event_id = ANY(%s)
"""
