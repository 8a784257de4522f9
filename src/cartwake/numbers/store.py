"""The SQL of room `numbers`."""

INSERT_SENDER = """
INSERT INTO senders (organization_id, shop_id, sender_id, address, kind, country, state, segments_per_s,
                     paced_until, created_at)
VALUES (%(organization_id)s, %(shop_id)s, %(sender_id)s, %(address)s, %(kind)s, %(country)s, 'active',
        %(segments_per_s)s, %(paced_until)s, %(now)s)
"""
SELECT_ACTIVE = """
SELECT s.organization_id, s.shop_id, s.sender_id, s.address, s.kind, s.country, s.segments_per_s, s.paced_until
FROM senders s
JOIN unnest(%(organizations)s::uuid[], %(shops)s::uuid[]) AS k (organization_id, shop_id)
  USING (organization_id, shop_id)
WHERE s.state = 'active'
"""
# A text arrived at one of our numbers: whose is it?
FIND_OWNERS = """
SELECT address, organization_id, shop_id FROM senders
WHERE address = ANY(%s) AND kind <> 'alphanumeric' AND state IN ('active', 'held')
"""
# Every number that some shop texts from; an alphanumeric sender is none.
SELECT_NUMBERS_IN_USE = """
SELECT address FROM senders WHERE state = 'active' AND kind <> 'alphanumeric' ORDER BY address
"""
READ_ADDRESSES = """
SELECT sender_id, address FROM senders WHERE sender_id = ANY(%s)
"""
MOVE_PACE = """
UPDATE senders s SET paced_until = p.until
FROM unnest(%(organizations)s::uuid[], %(shops)s::uuid[], %(senders)s::uuid[], %(untils)s::timestamptz[])
  AS p (organization_id, shop_id, sender_id, until)
WHERE (s.organization_id, s.shop_id, s.sender_id) = (p.organization_id, p.shop_id, p.sender_id)
"""
