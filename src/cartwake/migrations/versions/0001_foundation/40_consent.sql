-- Room `consent`: what each shopper agreed to, per shop and phone, and the proof of it.
CREATE TABLE consent_states (
  organization_id    uuid NOT NULL,
  shop_id            uuid NOT NULL,
  phone_hash         bytea NOT NULL,
  state              text NOT NULL CHECK (state IN ('granted', 'withdrawn')),
  state_at           timestamptz NOT NULL,   -- of the row's last event; the next one is later, whatever clocks say
  suppressed_at      timestamptz,            -- set: no text, whatever box is ticked; only START clears a STOP
  suppression_reason text CHECK (suppression_reason IN ('stop', 'not_my_number', 'carrier_opt_out', 'unreachable')),
  PRIMARY KEY (organization_id, shop_id, phone_hash),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK ((suppressed_at IS NULL) = (suppression_reason IS NULL))
);
CREATE INDEX consent_states_by_phone ON consent_states (phone_hash);

-- What happened, without anything personal: the commitment binds it to its evidence.
CREATE TABLE consent_events (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  event_id        uuid NOT NULL,
  action          text NOT NULL CHECK (action IN ('granted', 'withdrawn', 'suppressed', 'unsuppressed')),
  channel         text NOT NULL CHECK (channel IN ('checkbox', 'inbound_text', 'carrier', 'opt_out_link', 'api',
                    'dashboard')),
  commitment      bytea NOT NULL,            -- SHA-256 over the salt and the canonical evidence
  at              timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, event_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops
);

-- The personal side of an event; erasure removes this row and the event still stands.
CREATE TABLE consent_evidence (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  event_id        uuid NOT NULL,
  phone_hash      bytea NOT NULL,
  salt            bytea NOT NULL,
  evidence_sealed bytea NOT NULL,            -- JSON: wording, version, locale, page, form field, IP hash, actor
  PRIMARY KEY (organization_id, shop_id, event_id),
  FOREIGN KEY (organization_id, shop_id, event_id) REFERENCES consent_events
);
CREATE INDEX consent_evidence_by_phone ON consent_evidence (organization_id, shop_id, phone_hash);

-- "This is not my number": no shop of this deployment may text it.
CREATE TABLE suppressed_phones (
  phone_hash bytea PRIMARY KEY,
  reason     text NOT NULL CHECK (reason IN ('not_my_number')),
  at         timestamptz NOT NULL
);

CALL raise_tenant_wall('consent_states', true);
CALL raise_tenant_wall('consent_events', true);
CALL raise_tenant_wall('consent_evidence', true);
CALL make_append_only('consent_events');

GRANT SELECT, INSERT, UPDATE ON consent_states TO cartwake_web, cartwake_engine;
GRANT SELECT, INSERT ON consent_events, consent_evidence TO cartwake_web, cartwake_engine;
GRANT SELECT, INSERT ON suppressed_phones TO cartwake_engine;

-- "Not my number" comes in through one shop's link and must stop every shop: the one write that crosses
-- tenants, so it is a function that does only that. It touches the state rows, so that a claim sees it.
CREATE FUNCTION suppress_phone_everywhere(phone bytea, moment timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.suppressed_phones (phone_hash, reason, at) VALUES (phone, 'not_my_number', moment)
    ON CONFLICT (phone_hash) DO NOTHING;
  UPDATE public.consent_states SET suppressed_at = moment, suppression_reason = 'not_my_number'
    WHERE phone_hash = phone;
$$;
GRANT SELECT, UPDATE ON consent_states TO cartwake_directory;
GRANT SELECT, INSERT ON suppressed_phones TO cartwake_directory;
