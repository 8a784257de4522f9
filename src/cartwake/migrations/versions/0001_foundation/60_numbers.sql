-- Room `numbers`: the senders that shops text from.
CREATE TABLE senders (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  sender_id       uuid NOT NULL,
  address         text NOT NULL CHECK (address ~ '^(\+[1-9][0-9]{6,14}|[A-Za-z0-9 ]{1,11})$'),
  kind            text NOT NULL CHECK (kind IN ('long_code', 'toll_free', 'alphanumeric')),
  country         char(2),                   -- of the number; an alphanumeric sender has none
  state           text NOT NULL CHECK (state IN ('requested', 'pending_regulatory', 'active', 'unavailable', 'held',
                    'released', 'cancelled')),
  segments_per_s  double precision NOT NULL CHECK (segments_per_s > 0),
  paced_until     timestamptz NOT NULL,      -- everything handed to it so far will have left by then
  created_at      timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, sender_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK ((kind = 'alphanumeric') = (country IS NULL)),
  CHECK ((kind = 'alphanumeric') = (address !~ '^\+'))
);
-- A number answers for one shop only; it is looked up before the tenant is known.
CREATE UNIQUE INDEX senders_directory ON senders (address) WHERE kind <> 'alphanumeric' AND state IN ('active', 'held');
CREATE UNIQUE INDEX senders_per_shop ON senders (organization_id, shop_id, address) WHERE state IN ('active', 'held');

CALL raise_tenant_wall('senders', true);
GRANT SELECT ON senders TO cartwake_web;
GRANT SELECT, INSERT, UPDATE ON senders TO cartwake_operator;
GRANT SELECT, UPDATE ON senders TO cartwake_engine;
