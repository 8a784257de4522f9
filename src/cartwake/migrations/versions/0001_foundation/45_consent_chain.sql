-- Room `consent`: each shop's events chained, so that none can be changed, dropped or slipped in unnoticed. The sealer
-- does it a minute after they were written: writers never wait for each other at the chain's head.

-- Where a shop's chain stands. Whoever seals holds this row, so a shop's events are chained by one sealer at a time.
CREATE TABLE consent_chains (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  position        bigint NOT NULL CHECK (position >= 0),  -- of the last link; 0: none yet
  head            bytea CHECK (octet_length(head) = 32),  -- the last link
  sealed_at       timestamptz,                            -- when that was
  PRIMARY KEY (organization_id, shop_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK ((position = 0) = (head IS NULL) AND (head IS NULL) = (sealed_at IS NULL))
);

-- The chain: each link is SHA-256 over the one before it and its event (`consent/chain.py`).
CREATE TABLE consent_links (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  position        bigint NOT NULL CHECK (position > 0),
  event_id        uuid NOT NULL,
  link            bytea NOT NULL CHECK (octet_length(link) = 32),
  sealed_at       timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, position),
  UNIQUE (organization_id, shop_id, event_id),
  FOREIGN KEY (organization_id, shop_id, event_id) REFERENCES consent_events
);

-- What awaits sealing: written in one statement with its event, removed in one transaction with its link. So an event
-- whose transaction commits late is found all the same, and nobody searches all events for those without a link.
CREATE TABLE consent_unsealed (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  at              timestamptz NOT NULL,      -- of the event: what one phone said is chained in the order it was said
  event_id        uuid NOT NULL,
  PRIMARY KEY (organization_id, shop_id, at, event_id),
  FOREIGN KEY (organization_id, shop_id, event_id) REFERENCES consent_events
);

CALL raise_tenant_wall('consent_chains', true);
CALL raise_tenant_wall('consent_links', true);
CALL raise_tenant_wall('consent_unsealed', true);
CALL make_append_only('consent_links');

GRANT SELECT ON consent_chains, consent_links TO cartwake_web;
GRANT SELECT, INSERT ON consent_unsealed TO cartwake_web;
GRANT SELECT, INSERT, UPDATE ON consent_chains TO cartwake_engine;
GRANT SELECT, INSERT ON consent_links TO cartwake_engine;
GRANT SELECT, INSERT, DELETE ON consent_unsealed TO cartwake_engine;
