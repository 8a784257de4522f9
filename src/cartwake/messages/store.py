"""The SQL of room `messages`: scheduling, claiming, and the carrier's answers. The queue's is in `queue`."""

from __future__ import annotations

# One row per session, kind and step, whoever asks and however often: this is what keeps a cart from being
# texted twice. Returns the rows that are new.
INSERT_MESSAGES = """
INSERT INTO sms_messages (organization_id, shop_id, message_id, session_id, kind, step, state, due_at,
                          traceparent, created_at, updated_at)
SELECT organization_id, shop_id, message_id, session_id, %(kind)s, %(step)s, 'scheduled', due_at, traceparent,
       %(now)s, %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(messages)s::uuid[], %(sessions)s::uuid[],
            %(due_ats)s::timestamptz[], %(traceparents)s::text[])
  AS m (organization_id, shop_id, message_id, session_id, due_at, traceparent)
ON CONFLICT (organization_id, shop_id, session_id, kind, step) DO NOTHING
RETURNING session_id, message_id
"""

INSERT_DECISIONS = """
INSERT INTO sms_decisions (organization_id, shop_id, decision_id, session_id, message_id, gate, outcome, reason,
                           until, at)
SELECT organization_id, shop_id, decision_id, session_id, message_id, gate, outcome, reason, until, %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(decisions)s::uuid[], %(sessions)s::uuid[],
            %(messages)s::uuid[], %(gates)s::text[], %(outcomes)s::text[], %(reasons)s::text[],
            %(untils)s::timestamptz[])
  AS d (organization_id, shop_id, decision_id, session_id, message_id, gate, outcome, reason, until)
"""

# Everything the gates ask of a shop, its organization and the deployment, for many shops at once.
READ_SHOPS = """
SELECT s.organization_id, s.shop_id, s.name, s.default_country, s.default_locale, o.plan,
       c.enabled, c.idle_s, c.email_delay_s, c.text_delay_s, c.stale_after_s, c.payment_timeout_s, c.window_opens,
       c.window_closes, c.spread_s, c.cycle_cap, c.attribution_window_s, c.low_credits_at, c.paused_at
FROM shops s
JOIN organizations o USING (organization_id)
JOIN shop_sms_configs c USING (organization_id, shop_id)
JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[]) AS k (organization_id, shop_id)
  USING (organization_id, shop_id)
"""

# The claim's results. Only what still waits moves; the shop's queue row is locked meanwhile.
HOLD_OR_DROP = """
UPDATE sms_messages m SET
  state = v.state, reason = v.reason, due_at = COALESCE(v.until, m.due_at),
  ended_at = CASE WHEN v.state = 'dropped' THEN %(now)s END, updated_at = %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(messages)s::uuid[], %(states)s::text[],
            %(reasons)s::text[], %(untils)s::timestamptz[])
  AS v (organization_id, shop_id, message_id, state, reason, until)
WHERE (m.organization_id, m.shop_id, m.message_id) = (v.organization_id, v.shop_id, v.message_id)
  AND m.state = ANY(%(from_states)s)
"""
BEGIN_SENDING = """
UPDATE sms_messages m SET
  state = 'sending', reason = NULL, attempts = m.attempts + 1, attempt_id = a.attempt_id, attempted_at = %(now)s,
  lease_until = %(lease_until)s, sender_id = a.sender_id, phone_sealed = a.phone_sealed, phone_hash = a.phone_hash,
  phone_country = a.phone_country, body_sealed = a.body_sealed, locale = a.locale,
  template_version = a.template_version, segments = a.segments, credits = a.credits, send_until = a.send_until,
  updated_at = %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(messages)s::uuid[], %(attempts)s::uuid[],
            %(senders)s::uuid[], %(sealed_phones)s::bytea[], %(phones)s::bytea[], %(countries)s::text[],
            %(bodies)s::bytea[], %(locales)s::text[], %(template_versions)s::int[], %(segments)s::int[],
            %(credits)s::int[], %(send_untils)s::timestamptz[])
  AS a (organization_id, shop_id, message_id, attempt_id, sender_id, phone_sealed, phone_hash, phone_country,
        body_sealed, locale, template_version, segments, credits, send_until)
WHERE (m.organization_id, m.shop_id, m.message_id) = (a.organization_id, a.shop_id, a.message_id)
  AND m.state = ANY(%(from_states)s)
RETURNING m.message_id
"""

# The 24-hour cap over the whole deployment. Granted: phones not texted since the cutoff. Rows are taken in
# order of hash, so that two workers cannot wait for each other.
TAKE_RECIPIENTS = """
INSERT INTO recipient_texts AS r (phone_hash, message_id, texted_at)
SELECT phone_hash, message_id, %(now)s
FROM unnest(%(phones)s::bytea[], %(messages)s::uuid[]) AS t (phone_hash, message_id)
ORDER BY phone_hash
ON CONFLICT (phone_hash) DO UPDATE SET message_id = EXCLUDED.message_id, texted_at = EXCLUDED.texted_at
WHERE r.texted_at <= %(cutoff)s
RETURNING r.message_id
"""
# Nothing went out after all, so the phone may be texted within the day.
GIVE_RECIPIENTS_BACK = """
DELETE FROM recipient_texts r USING (
  SELECT phone_hash FROM recipient_texts WHERE message_id = ANY(%(messages)s) ORDER BY phone_hash FOR UPDATE
) AS g WHERE r.phone_hash = g.phone_hash AND r.message_id = ANY(%(messages)s)
"""

# The messages that some attempts or carrier ids belong to, locked in one order.
LOCK_BY_ATTEMPT_OR_SID = """
SELECT organization_id, shop_id, message_id, session_id, state, reason, attempts, attempt_id, carrier_sid, phone_hash,
       phone_country, traceparent
FROM sms_messages
WHERE attempt_id = ANY(%(attempts)s) OR carrier_sid = ANY(%(sids)s)
ORDER BY organization_id, shop_id, message_id
FOR UPDATE
"""
# Whatever an answer of the carrier made of a message. The caller has the row locked and chose by the table.
MOVE = """
UPDATE sms_messages m SET
  state = v.state, reason = COALESCE(v.reason, m.reason), carrier_sid = COALESCE(v.carrier_sid, m.carrier_sid),
  error_code = COALESCE(v.error_code, m.error_code),
  accepted_at = CASE WHEN v.accepted THEN COALESCE(m.accepted_at, %(now)s) ELSE m.accepted_at END,
  sent_at = CASE WHEN v.state = 'sent' THEN COALESCE(m.sent_at, %(now)s) ELSE m.sent_at END,
  ended_at = CASE WHEN v.state = ANY(%(ended)s) THEN COALESCE(m.ended_at, %(now)s) END,
  lease_until = CASE WHEN v.state = 'sending' THEN m.lease_until END,
  attempt_id = CASE WHEN v.state = 'held' THEN NULL ELSE m.attempt_id END,
  due_at = COALESCE(v.due_at, m.due_at), updated_at = %(now)s
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(messages)s::uuid[], %(states)s::text[],
            %(reasons)s::text[], %(new_sids)s::text[], %(codes)s::int[], %(accepted)s::boolean[],
            %(due_ats)s::timestamptz[])
  AS v (organization_id, shop_id, message_id, state, reason, carrier_sid, error_code, accepted, due_at)
WHERE (m.organization_id, m.shop_id, m.message_id) = (v.organization_id, v.shop_id, v.message_id)
"""

# A worker that took these never came back: nobody knows whether the carrier did. Their credits stay reserved.
LAPSE_LEASES = """
UPDATE sms_messages m SET state = 'unknown', reason = 'lease_lapsed', lease_until = NULL, updated_at = %(now)s
FROM (
  SELECT organization_id, shop_id, message_id FROM sms_messages
  WHERE state = 'sending' AND lease_until <= %(now)s
  ORDER BY lease_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AS l
WHERE (m.organization_id, m.shop_id, m.message_id) = (l.organization_id, l.shop_id, l.message_id)
RETURNING m.message_id, m.phone_country
"""
# Texts of unknown fate, longest unasked first, with all that is needed to ask the carrier.
READ_UNKNOWN = """
SELECT m.organization_id, m.shop_id, m.message_id, m.attempt_id, m.attempted_at, m.sender_id, m.phone_sealed,
       m.body_sealed
FROM sms_messages m WHERE m.state = 'unknown' ORDER BY m.updated_at LIMIT %(limit)s
"""
TOUCH = """
UPDATE sms_messages SET updated_at = %(now)s
WHERE message_id = ANY(%(messages)s) AND state IN ('unknown', 'accepted', 'sent')
"""
# Accepted long ago, and no receipt of their end; longest unasked first.
READ_SILENT = """
SELECT message_id, attempt_id, accepted_at, carrier_sid AS sid FROM sms_messages
WHERE state IN ('accepted', 'sent') AND accepted_at <= %(cutoff)s ORDER BY updated_at LIMIT %(limit)s
"""

# After a restore: every message that waits or is in flight, to be recognized by the link in its text. The whole
# set is held in memory, some 100 bytes a message, while nothing is being sent.
READ_UNSETTLED = """
SELECT organization_id, shop_id, message_id, session_id, state IN ('scheduled', 'held') AS waits FROM sms_messages
WHERE state IN ('scheduled', 'held', 'sending', 'unknown')
"""
# After a restore: which of these carrier ids the backup knows, or receipts since have made known.
READ_ACCEPTED_SIDS = """
SELECT carrier_sid FROM sms_messages
WHERE carrier_sid = ANY(%(sids)s) AND reason IS DISTINCT FROM 'sent_before_restore'
"""
# After a restore: carts of these shops and phones for which the backup knows no message.
READ_CARTS_OF_PHONES = """
SELECT s.organization_id, s.shop_id, s.session_id, s.phone_hash
FROM checkout_sessions s
JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(phones)s::bytea[])
  AS k (organization_id, shop_id, phone_hash) USING (organization_id, shop_id, phone_hash)
WHERE NOT EXISTS (
  SELECT FROM sms_messages m
  WHERE (m.organization_id, m.shop_id, m.session_id) = (s.organization_id, s.shop_id, s.session_id)
)
"""
# After a restore: these went out after the backup was taken. They are over; what they cost is in nobody's ledger.
MARK_SENT_BEFORE_RESTORE = """
UPDATE sms_messages m SET state = 'dropped', reason = 'sent_before_restore', carrier_sid = v.sid,
  ended_at = %(now)s, updated_at = %(now)s
FROM unnest(%(messages)s::uuid[], %(sids)s::text[]) AS v (message_id, sid)
WHERE m.message_id = v.message_id AND m.state = ANY(%(from_states)s)
RETURNING m.message_id
"""
REMEMBER_RECIPIENTS = """
INSERT INTO recipient_texts AS r (phone_hash, message_id, texted_at)
SELECT DISTINCT ON (phone_hash) phone_hash, message_id, at
FROM unnest(%(phones)s::bytea[], %(messages)s::uuid[], %(ats)s::timestamptz[]) AS t (phone_hash, message_id, at)
ORDER BY phone_hash, at DESC
ON CONFLICT (phone_hash) DO UPDATE SET message_id = EXCLUDED.message_id, texted_at = EXCLUDED.texted_at
WHERE r.texted_at < EXCLUDED.texted_at
"""

# A shopper's text is kept once, however often the carrier tells it, or somebody who overheard it: START said again
# after a STOP would lift that. Receipts are kept each time: their order is in the table of transitions.
INSERT_EVENTS = """
INSERT INTO carrier_events (event_id, kind, inbound_sid, payload_sealed, received_at)
SELECT event_id, kind, inbound_sid, payload, received_at
FROM unnest(%(events)s::uuid[], %(kinds)s::text[], %(inbound_sids)s::text[], %(payloads)s::bytea[],
            %(received_ats)s::timestamptz[])
  AS e (event_id, kind, inbound_sid, payload, received_at)
ON CONFLICT DO NOTHING
"""
CLAIM_EVENTS = """
SELECT event_id, kind, payload_sealed, received_at FROM carrier_events
WHERE processed_at IS NULL ORDER BY event_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
FINISH_EVENTS = """
UPDATE carrier_events e SET processed_at = %(now)s, outcome = o.outcome
FROM unnest(%(events)s::uuid[], %(outcomes)s::text[]) AS o (event_id, outcome) WHERE e.event_id = o.event_id
"""

OLDEST_WAITING = """
SELECT received_at FROM carrier_events WHERE processed_at IS NULL ORDER BY event_id LIMIT 1
"""
CLAIM_EVENT = """
SELECT event_id, kind, payload_sealed, received_at FROM carrier_events
WHERE event_id = %s AND processed_at IS NULL FOR UPDATE SKIP LOCKED
"""

# One event that cannot be applied must not stop those behind it.
SET_ASIDE = """
UPDATE carrier_events SET processed_at = %(now)s, outcome = %(outcome)s, error = %(error)s
WHERE event_id = %(event_id)s AND processed_at IS NULL RETURNING kind
"""
COUNT_SET_ASIDE = """
SELECT count(*) AS events, min(received_at) AS oldest_at FROM carrier_events WHERE outcome IN ('unreadable', 'failed')
"""
LIST_SET_ASIDE = """
SELECT event_id, kind, payload_sealed, received_at, outcome, error FROM carrier_events
WHERE outcome IN ('unreadable', 'failed') AND (%(before)s::uuid IS NULL OR event_id < %(before)s)
ORDER BY event_id DESC LIMIT %(limit)s
"""
# Waiting again, in their old place: what came first is applied first.
PUT_BACK = """
UPDATE carrier_events SET processed_at = NULL, outcome = NULL, error = NULL
WHERE outcome IN ('unreadable', 'failed') AND (%(event_id)s::uuid IS NULL OR event_id = %(event_id)s)
RETURNING event_id
"""
DISMISS = """
UPDATE carrier_events SET processed_at = %(now)s, outcome = 'dismissed'
WHERE outcome IN ('unreadable', 'failed') AND event_id = %(event_id)s RETURNING event_id
"""

# For a queue outside: a page of shops that have something to claim before a time, none of them paused.
READ_SHOPS_DUE = """
SELECT q.organization_id, q.shop_id, q.next_due_at, c.cycle_cap
FROM sms_shop_queues q JOIN shop_sms_configs c USING (organization_id, shop_id)
WHERE q.next_due_at < %(before)s AND c.paused_at IS NULL AND NOT EXISTS (SELECT FROM deployment_switches)
  AND (q.organization_id, q.shop_id) > (%(after_organization)s, %(after_shop)s)
ORDER BY q.organization_id, q.shop_id LIMIT %(limit)s
"""
# Their messages, the earliest first, at most those of three cycles.
READ_DUE_OF_SHOPS = """
SELECT m.organization_id, m.shop_id, m.session_id, m.step, GREATEST(m.due_at, s.next_due_at) AS at
FROM unnest(%(organization_id)s::uuid[], %(shop_id)s::uuid[], %(next_due_at)s::timestamptz[], %(cycle_cap)s::int[])
  AS s (organization_id, shop_id, next_due_at, cycle_cap)
CROSS JOIN LATERAL (
  SELECT * FROM sms_messages m
  WHERE m.organization_id = s.organization_id AND m.shop_id = s.shop_id
    AND m.state IN ('scheduled', 'held') AND m.due_at < %(before)s
  ORDER BY m.due_at LIMIT 3 * s.cycle_cap
) AS m
"""
# For a queue outside: where the messages stand whose jobs have fired, and when their shops are next of interest.
READ_FATES = """
SELECT m.organization_id, m.shop_id, m.session_id, m.step, m.state, m.due_at, q.next_due_at,
       c.paused_at IS NOT NULL OR EXISTS (SELECT FROM deployment_switches) AS paused
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(sessions)s::uuid[], %(steps)s::int[])
  AS k (organization_id, shop_id, session_id, step)
JOIN sms_messages m ON m.kind = %(kind)s
  AND (m.organization_id, m.shop_id, m.session_id, m.step) = (k.organization_id, k.shop_id, k.session_id, k.step)
JOIN sms_shop_queues q ON (q.organization_id, q.shop_id) = (m.organization_id, m.shop_id)
JOIN shop_sms_configs c ON (c.organization_id, c.shop_id) = (m.organization_id, m.shop_id)
"""

# For people: messages newest first, a page at a time.
LIST_MESSAGES = """
SELECT m.message_id, m.session_id, s.external_id, m.kind, m.step, m.state, m.reason, m.due_at, m.attempts,
       m.phone_sealed, m.phone_country, m.locale, m.template_version, m.segments, m.credits, m.carrier_sid,
       m.accepted_at, m.sent_at, m.error_code, m.ended_at, m.created_at, m.updated_at
FROM sms_messages m JOIN checkout_sessions s USING (organization_id, shop_id, session_id)
WHERE m.organization_id = %(organization_id)s AND m.shop_id = %(shop_id)s
  AND (%(state)s::text IS NULL OR m.state = %(state)s)
  AND (%(before)s::uuid IS NULL OR m.message_id < %(before)s)
  AND (%(message_id)s::uuid IS NULL OR m.message_id = %(message_id)s)
  AND (%(session_id)s::uuid IS NULL OR m.session_id = %(session_id)s)
ORDER BY m.message_id DESC LIMIT %(limit)s
"""
# For the operator: texts of unknown fate, over all tenants, newest first.
LIST_DOUBTFUL = """
SELECT organization_id, shop_id, message_id, state, reason, attempt_id, attempted_at, phone_country, credits, ended_at
FROM sms_messages
WHERE state IN ('unknown', 'unresolved') AND (%(before)s::uuid IS NULL OR message_id < %(before)s)
ORDER BY message_id DESC LIMIT %(limit)s
"""
LIST_DECISIONS = """
SELECT at, gate, outcome, reason, until FROM sms_decisions
WHERE organization_id = %s AND shop_id = %s AND session_id = %s ORDER BY at, decision_id
"""
RECIPIENT_OF = """
SELECT phone_hash FROM sms_messages WHERE organization_id = %s AND shop_id = %s AND message_id = %s
"""

# The newest version of each of these shops and locales: one look at the primary key for each, all in one query.
READ_TEMPLATES = """
SELECT k.organization_id, k.shop_id, k.locale, t.version, t.text
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(locales)s::text[]) AS k (organization_id, shop_id, locale)
CROSS JOIN LATERAL (
  SELECT t.version, t.text FROM sms_template_versions t
  WHERE t.organization_id = k.organization_id AND t.shop_id = k.shop_id AND t.locale = k.locale
  ORDER BY t.version DESC LIMIT 1
) AS t
WHERE t.text IS NOT NULL
"""
LIST_TEMPLATE_VERSIONS = """
SELECT locale, version, text, changed_by, at FROM sms_template_versions
WHERE organization_id = %(organization_id)s AND shop_id = %(shop_id)s AND locale = %(locale)s
  AND (%(before)s::integer IS NULL OR version < %(before)s)
ORDER BY version DESC LIMIT %(limit)s
"""
LIST_NEWEST_TEMPLATES = """
SELECT DISTINCT ON (locale) locale, version, text, changed_by, at FROM sms_template_versions
WHERE organization_id = %s AND shop_id = %s ORDER BY locale, version DESC
"""
INSERT_TEMPLATE_VERSION = """
INSERT INTO sms_template_versions (organization_id, shop_id, locale, version, text, changed_by, at)
VALUES (%(organization_id)s, %(shop_id)s, %(locale)s, %(version)s, %(text)s, %(changed_by)s, %(at)s)
"""

# A reply answers the last text that its phone got, if that was the shop's. One that the carrier told before is not
# new. Returns the new ones, each with what it answers.
INSERT_REPLIES = """
WITH said AS (
  SELECT r.*, m.message_id, s.external_id
  FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(replies)s::uuid[], %(sids)s::text[], %(meanings)s::text[],
              %(addresses)s::text[], %(sealed_phones)s::bytea[], %(phones)s::bytea[], %(bodies)s::bytea[],
              %(received_ats)s::timestamptz[])
    AS r (organization_id, shop_id, reply_id, carrier_sid, meaning, sent_to, phone_sealed, phone_hash, body_sealed,
          received_at)
  LEFT JOIN recipient_texts t USING (phone_hash)
  LEFT JOIN sms_messages m
    ON (m.organization_id, m.shop_id, m.message_id) = (r.organization_id, r.shop_id, t.message_id)
  LEFT JOIN checkout_sessions s
    ON (s.organization_id, s.shop_id, s.session_id) = (m.organization_id, m.shop_id, m.session_id)
), kept AS (
  INSERT INTO sms_replies (organization_id, shop_id, reply_id, carrier_sid, meaning, message_id, sent_to,
                           phone_sealed, phone_hash, body_sealed, received_at)
  SELECT organization_id, shop_id, reply_id, carrier_sid, meaning, message_id, sent_to, phone_sealed, phone_hash,
         body_sealed, received_at
  FROM said ORDER BY organization_id, shop_id, carrier_sid
  ON CONFLICT (organization_id, shop_id, carrier_sid) DO NOTHING
  RETURNING reply_id
)
SELECT reply_id, message_id, external_id FROM kept JOIN said USING (reply_id) ORDER BY reply_id
"""
LIST_REPLIES = """
SELECT r.reply_id, r.meaning, r.message_id, s.external_id, r.sent_to, r.phone_sealed, r.body_sealed, r.received_at
FROM sms_replies r
LEFT JOIN sms_messages m USING (organization_id, shop_id, message_id)
LEFT JOIN checkout_sessions s USING (organization_id, shop_id, session_id)
WHERE r.organization_id = %(organization_id)s AND r.shop_id = %(shop_id)s
  AND (%(before)s::uuid IS NULL OR r.reply_id < %(before)s)
ORDER BY r.reply_id DESC LIMIT %(limit)s
"""
