-- Room `carts`: checkout sessions from first sight to order, and the links that lead back to them.
CREATE TABLE checkout_sessions (
  organization_id    uuid NOT NULL,
  shop_id            uuid NOT NULL,
  session_id         uuid NOT NULL,
  external_id        text NOT NULL CHECK (char_length(external_id) BETWEEN 1 AND 200),
  state              text NOT NULL CHECK (state IN ('open', 'abandoned', 'payment_pending', 'completed', 'expired')),
  phone_sealed       bytea,
  phone_hash         bytea,
  phone_country      char(2),
  consented_phone    bytea,                  -- hash of the phone the box was ticked for; another phone has none
  country            char(2),                -- of the shipping address
  province           text,
  time_zone          text,
  locale             text,
  cart_value_minor   bigint CHECK (cart_value_minor >= 0),
  currency           char(3),
  checkout_url_sealed bytea,                 -- may carry the storefront's secret
  last_activity_at   timestamptz NOT NULL,
  abandoned_at       timestamptz,            -- the last activity before it was found idle
  scan_at            timestamptz,            -- when the abandonment scan should ask; null: nothing to ask
  stale_at           timestamptz NOT NULL,   -- too old to text from here on
  refusal            text,                   -- why it was not scheduled, when last asked
  payment_until      timestamptz,            -- a payment in flight counts until then
  completed_at       timestamptz,
  order_id           text,
  order_value_minor  bigint CHECK (order_value_minor >= 0),
  order_currency     char(3),
  attributed_to      uuid,                   -- the message that brought the shopper back
  attribution        text CHECK (attribution IN ('token', 'click')),
  traceparent        text CHECK (char_length(traceparent) = 55),  -- of the call that wrote it last, where traced
  created_at         timestamptz NOT NULL,
  updated_at         timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, session_id),
  UNIQUE (organization_id, shop_id, external_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK ((phone_hash IS NULL) = (phone_sealed IS NULL)),
  CHECK ((state = 'completed') = (completed_at IS NOT NULL)),
  CHECK ((attributed_to IS NULL) = (attribution IS NULL))
);
-- The scan's queue over all tenants: small however many sessions exist, because what was asked leaves it.
CREATE INDEX checkout_sessions_to_scan ON checkout_sessions (scan_at) WHERE scan_at IS NOT NULL;
CREATE INDEX checkout_sessions_to_expire ON checkout_sessions (stale_at) WHERE state IN ('open', 'abandoned');
CREATE INDEX checkout_sessions_paying ON checkout_sessions (payment_until) WHERE state = 'payment_pending';
CREATE INDEX checkout_sessions_refused ON checkout_sessions (organization_id, shop_id, refusal)
  WHERE refusal IS NOT NULL AND state = 'abandoned';

-- Facts about carts that other channels wait for (`email_due` until the e-mail channel exists).
CREATE TABLE cart_events (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  event_id        uuid NOT NULL,
  session_id      uuid NOT NULL,
  kind            text NOT NULL CHECK (kind IN ('email_due')),
  due_at          timestamptz NOT NULL,
  at              timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, event_id),
  FOREIGN KEY (organization_id, shop_id, session_id) REFERENCES checkout_sessions,
  UNIQUE (organization_id, shop_id, session_id, kind)
);

-- One per message. The id is looked up before the tenant is known.
CREATE TABLE short_links (
  organization_id  uuid NOT NULL,
  shop_id          uuid NOT NULL,
  link_id          bytea NOT NULL,
  session_id       uuid NOT NULL,
  message_id       uuid NOT NULL,
  expires_at       timestamptz NOT NULL,
  first_clicked_at timestamptz,
  last_clicked_at  timestamptz,
  clicks           integer NOT NULL DEFAULT 0,
  created_at       timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, link_id),
  UNIQUE (organization_id, shop_id, message_id),
  FOREIGN KEY (organization_id, shop_id, session_id) REFERENCES checkout_sessions
);
CREATE UNIQUE INDEX short_links_directory ON short_links (link_id);
CREATE INDEX short_links_by_session ON short_links (organization_id, shop_id, session_id);

CALL raise_tenant_wall('checkout_sessions', true);
CALL raise_tenant_wall('cart_events', true);
CALL raise_tenant_wall('short_links', true);

GRANT SELECT, INSERT, UPDATE ON checkout_sessions TO cartwake_web;
GRANT SELECT, UPDATE ON short_links TO cartwake_web;
GRANT SELECT ON cart_events TO cartwake_web;
GRANT SELECT, UPDATE ON checkout_sessions TO cartwake_engine;
GRANT SELECT, INSERT ON cart_events TO cartwake_engine;
GRANT SELECT, INSERT, UPDATE ON short_links TO cartwake_engine;
-- An operator who changes a plan, a switch or a balance makes refused carts worth asking again.
GRANT SELECT, UPDATE ON checkout_sessions TO cartwake_operator;

-- Whose link is this?
CREATE FUNCTION find_short_link(link bytea) RETURNS TABLE (organization_id uuid, shop_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT l.organization_id, l.shop_id FROM public.short_links l WHERE l.link_id = link
$$;
GRANT SELECT ON short_links TO cartwake_directory;
