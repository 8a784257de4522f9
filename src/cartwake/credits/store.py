"""The SQL of room `credits`. Lists go in as arrays, so a batch of any size is one statement.

Arrays travel in binary, `%(…)b`: as text each element is searched for quotes, a third of the client's work.
"""

from __future__ import annotations

# Give organizations an account of 0 credits; one that exists stays as it is. Sorted, as locks are.
OPEN_ACCOUNTS = """
INSERT INTO org_sms_credit_balances (organization_id, account, available_credits, last_entry_no, updated_at)
SELECT organization_id, %(account)s, 0, 0, %(now)s
FROM unnest(%(organization_ids)b::uuid[]) AS asked (organization_id)
ORDER BY organization_id
ON CONFLICT (organization_id, account) DO NOTHING
"""

# Lock balances, one after the other in sorted order, and say where each ledger stands.
LOCK_BALANCES = """
SELECT organization_id, available_credits, last_entry_no
FROM org_sms_credit_balances
WHERE account = %(account)s AND organization_id = ANY(%(organization_ids)b::uuid[])
ORDER BY organization_id
FOR UPDATE
"""

# Append entries and move each balance to its last entry: never one without the other.
POST_ENTRIES = """
WITH posted AS (
  INSERT INTO org_sms_credit_ledger
    (organization_id, account, entry_no, entry_type, credits, balance_after, reservation_id, reference, note, at)
  SELECT organization_id, %(account)s, entry_no, entry_type, credits, balance_after, reservation_id, reference, note,
    %(now)s
  FROM unnest(
    %(organization_ids)b::uuid[], %(entry_nos)b::bigint[], %(entry_types)b::text[], %(credits)b::bigint[],
    %(balances_after)b::bigint[], %(reservation_ids)b::uuid[], %(references)b::text[], %(notes)b::text[]
  ) AS entry (organization_id, entry_no, entry_type, credits, balance_after, reservation_id, reference, note)
  RETURNING organization_id, entry_no, balance_after
), last_posted AS (
  SELECT DISTINCT ON (organization_id) organization_id, entry_no, balance_after
  FROM posted ORDER BY organization_id, entry_no DESC
)
UPDATE org_sms_credit_balances AS balance
SET available_credits = last_posted.balance_after, last_entry_no = last_posted.entry_no, updated_at = %(now)s
FROM last_posted
WHERE balance.organization_id = last_posted.organization_id AND balance.account = %(account)s
"""

# Which organizations already have an entry of this type with this reference?
SELECT_POSTED = """
SELECT organization_id FROM org_sms_credit_ledger
WHERE account = %(account)s AND organization_id = ANY(%(organization_ids)b::uuid[])
  AND entry_type = %(entry_type)s AND reference = %(reference)s
"""

# Which of these reservations exist already, in whatever state? OFFSET 0 keeps it to one index lookup each: a
# planner whose statistics lag behind a fast-growing table would rather read the whole of it.
SELECT_RESERVATIONS = """
SELECT organization_id, reservation_id
FROM unnest(%(organization_ids)b::uuid[], %(reservation_ids)b::uuid[]) AS asked (organization_id, reservation_id)
WHERE EXISTS (
  SELECT FROM sms_credit_reservations AS reservation
  WHERE reservation.organization_id = asked.organization_id AND reservation.account = %(account)s
    AND reservation.reservation_id = asked.reservation_id
  OFFSET 0
)
"""

# Write down what was granted.
INSERT_RESERVATIONS = """
INSERT INTO sms_credit_reservations
  (organization_id, account, reservation_id, subject_id, credits, state, reserved_at)
SELECT organization_id, %(account)s, reservation_id, subject_id, credits, 'reserved', %(now)s
FROM unnest(
  %(organization_ids)b::uuid[], %(reservation_ids)b::uuid[], %(subject_ids)b::uuid[], %(credits)b::bigint[]
) AS granted (organization_id, reservation_id, subject_id, credits)
"""

# Settle reservations that are still open; the row's own state lets that happen once.
SETTLE_RESERVATIONS = """
UPDATE sms_credit_reservations AS reservation
SET state = %(state)s, settled_at = %(now)s
FROM unnest(%(organization_ids)b::uuid[], %(reservation_ids)b::uuid[]) AS asked (organization_id, reservation_id)
WHERE reservation.organization_id = asked.organization_id AND reservation.account = %(account)s
  AND reservation.reservation_id = asked.reservation_id AND reservation.state = 'reserved'
RETURNING reservation.organization_id, reservation.reservation_id, reservation.credits
"""

# Confirmed reservations whose credits have not been given back yet. OFFSET 0: as above.
SELECT_REFUNDABLE = """
SELECT asked.organization_id, asked.reservation_id, confirmed.credits
FROM unnest(%(organization_ids)b::uuid[], %(reservation_ids)b::uuid[]) AS asked (organization_id, reservation_id)
CROSS JOIN LATERAL (
  SELECT credits FROM sms_credit_reservations AS reservation
  WHERE reservation.organization_id = asked.organization_id AND reservation.account = %(account)s
    AND reservation.reservation_id = asked.reservation_id AND reservation.state = 'confirmed'
  OFFSET 0
) AS confirmed
WHERE NOT EXISTS (
  SELECT FROM org_sms_credit_ledger AS entry
  WHERE entry.organization_id = asked.organization_id AND entry.account = %(account)s
    AND entry.reservation_id = asked.reservation_id AND entry.entry_type = 'DELIVERY_REFUND'
  OFFSET 0
)
"""

# What is left, and what open reservations hold; no row when there is no account yet.
SELECT_BALANCE = """
SELECT balance.available_credits, (
  SELECT COALESCE(sum(credits), 0)::bigint FROM sms_credit_reservations AS reservation
  WHERE reservation.organization_id = balance.organization_id AND reservation.account = balance.account
    AND reservation.state = 'reserved'
) AS reserved_credits
FROM org_sms_credit_balances AS balance
WHERE organization_id = %(organization_id)s AND account = %(account)s
"""

# A page of the ledger, newest entry first.
SELECT_LEDGER = """
SELECT organization_id, entry_no, entry_type, credits, balance_after, reservation_id, reference, note, at
FROM org_sms_credit_ledger
WHERE organization_id = %(organization_id)s AND account = %(account)s
  AND entry_no < COALESCE(%(before)s::bigint, 9223372036854775807)
ORDER BY entry_no DESC
LIMIT %(limit)s
"""

# Invariant: a balance is the sum of its ledger, and stands at its last entry.
SELECT_BALANCES_OFF_LEDGER = """
SELECT organization_id, account, available_credits, last_entry_no, ledger_credits, entries
FROM org_sms_credit_balances
LEFT JOIN (
  SELECT organization_id, account, sum(credits) AS ledger_credits, count(*) AS entries, max(entry_no) AS newest_no
  FROM org_sms_credit_ledger GROUP BY organization_id, account
) AS ledger USING (organization_id, account)
WHERE (available_credits, last_entry_no, last_entry_no)
  IS DISTINCT FROM (COALESCE(ledger_credits, 0), COALESCE(newest_no, 0), COALESCE(entries, 0))
"""

# Invariant: every entry continues the one before it, in number and in balance.
SELECT_BROKEN_CHAINS = """
SELECT organization_id, account, entry_no, entry_type, credits, balance_after, previous_no, previous_balance
FROM (
  SELECT *, lag(entry_no, 1, 0::bigint) OVER entries AS previous_no,
    lag(balance_after, 1, 0::bigint) OVER entries AS previous_balance
  FROM org_sms_credit_ledger
  WINDOW entries AS (PARTITION BY organization_id, account ORDER BY entry_no)
) AS entry
WHERE entry_no <> previous_no + 1 OR balance_after <> previous_balance + credits
"""

# Invariant: a reservation's state is what its entries say (`entries`: type and size of each).
SELECT_RESERVATIONS_OFF_LEDGER = """
SELECT organization_id, account, reservation_id, reservation.state, reservation.credits, told.entries
FROM sms_credit_reservations AS reservation
LEFT JOIN (
  SELECT organization_id, account, reservation_id,
    jsonb_object_agg(entry_type, abs(credits)) AS entries
  FROM org_sms_credit_ledger WHERE reservation_id IS NOT NULL
  GROUP BY organization_id, account, reservation_id
) AS told USING (organization_id, account, reservation_id)
WHERE told.entries IS NULL OR NOT CASE reservation.state
  WHEN 'reserved' THEN told.entries = jsonb_build_object('SEND_RESERVE', reservation.credits)
  WHEN 'released' THEN
    told.entries = jsonb_build_object('SEND_RESERVE', reservation.credits, 'SEND_REFUND', reservation.credits)
  ELSE told.entries IN (
    jsonb_build_object('SEND_RESERVE', reservation.credits, 'SEND_CONFIRM', 0),
    jsonb_build_object(
      'SEND_RESERVE', reservation.credits, 'SEND_CONFIRM', 0, 'DELIVERY_REFUND', reservation.credits
    )
  )
END
"""

# Invariant: every reservation is settled in the end. Those still open that were made before a moment.
SELECT_OPEN_SINCE = """
SELECT organization_id, account, reservation_id, subject_id, credits, reserved_at
FROM sms_credit_reservations
WHERE state = 'reserved' AND reserved_at < %(before)s
ORDER BY reserved_at
"""

# What many organizations have available.
SELECT_AVAILABLE = """
SELECT organization_id, available_credits FROM org_sms_credit_balances
WHERE organization_id = ANY(%(organization_ids)s) AND account = %(account)s
"""
