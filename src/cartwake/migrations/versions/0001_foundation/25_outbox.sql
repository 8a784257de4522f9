-- Room `outbox`: what a shop wants to be told of, and where.

-- Where a shop listens; its row is the queue too: when something is next due, and who works on it. Both address
-- and secrets are sealed: addresses often carry a token.
CREATE TABLE shop_webhooks (
  organization_id      uuid NOT NULL,
  shop_id              uuid NOT NULL,
  url_sealed           bytea NOT NULL,
  secret_sealed        bytea NOT NULL,
  former_secret_sealed bytea,                -- signs as well, for whoever has not heard of the new one yet
  former_secret_until  timestamptz,
  next_due_at          timestamptz,          -- null: nothing waits
  lease_until          timestamptz,
  failing_since        timestamptz,          -- nothing was heard since; null: the last try was heard, or none was made
  failing_with         text,                 -- what the last try came to: HTTP 503, timeout
  created_at           timestamptz NOT NULL,
  updated_at           timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK ((former_secret_sealed IS NULL) = (former_secret_until IS NULL)),
  CHECK ((failing_since IS NULL) = (failing_with IS NULL))
);
CREATE INDEX shop_webhooks_next ON shop_webhooks (next_due_at) WHERE next_due_at IS NOT NULL;
CREATE INDEX shop_webhooks_failing ON shop_webhooks (failing_since) WHERE failing_since IS NOT NULL;

-- What is to be told. The body is kept until the event is over, and not a moment longer.
CREATE TABLE outbox_events (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  event_id        uuid NOT NULL,
  kind            text NOT NULL CHECK (kind IN ('reply.received')),
  payload_sealed  bytea,
  state           text NOT NULL CHECK (state IN ('waiting', 'delivered', 'gave_up', 'cancelled')),
  attempts        integer NOT NULL CHECK (attempts >= 0),
  due_at          timestamptz NOT NULL,
  last_status     smallint,                  -- HTTP; null: no answer came
  last_error      text,                      -- why none came
  created_at      timestamptz NOT NULL,
  ended_at        timestamptz,
  PRIMARY KEY (organization_id, shop_id, event_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK ((state = 'waiting') = (ended_at IS NULL)),
  CHECK ((state = 'waiting') = (payload_sealed IS NOT NULL))
);
CREATE INDEX outbox_events_waiting ON outbox_events (organization_id, shop_id, due_at) WHERE state = 'waiting';

CALL raise_tenant_wall('shop_webhooks', true);
CALL raise_tenant_wall('outbox_events', true);

GRANT SELECT, INSERT, UPDATE, DELETE ON shop_webhooks TO cartwake_web;
GRANT SELECT, UPDATE ON outbox_events TO cartwake_web;
GRANT SELECT, UPDATE ON shop_webhooks TO cartwake_engine;
GRANT SELECT, INSERT, UPDATE ON outbox_events TO cartwake_engine;
