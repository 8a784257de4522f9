-- Room `tenants`: who owns what, and the keys that open their doors.
CREATE TABLE organizations (
  organization_id uuid PRIMARY KEY,
  name            text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
  plan            text NOT NULL CHECK (plan IN ('FREE', 'PRO', 'ULTRA')),
  created_at      timestamptz NOT NULL
);

CREATE TABLE shops (
  organization_id uuid NOT NULL REFERENCES organizations,
  shop_id         uuid NOT NULL,
  name            text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
  default_country char(2) NOT NULL CHECK (default_country ~ '^[A-Z]{2}$'),
  default_locale  text NOT NULL,
  created_at      timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id)
);

-- What a merchant chose for texts; one row per shop, made with it.
CREATE TABLE shop_sms_configs (
  organization_id      uuid NOT NULL,
  shop_id              uuid NOT NULL,
  enabled              boolean NOT NULL,
  paused_at            timestamptz,          -- the shop's kill switch, thrown by the operator
  idle_s               integer NOT NULL CHECK (idle_s BETWEEN 60 AND 86400),
  email_delay_s        integer NOT NULL CHECK (email_delay_s BETWEEN 0 AND 86400),
  text_delay_s         integer NOT NULL CHECK (text_delay_s BETWEEN 60 AND 259200),
  stale_after_s        integer NOT NULL CHECK (stale_after_s BETWEEN 3600 AND 1209600),
  payment_timeout_s    integer NOT NULL CHECK (payment_timeout_s BETWEEN 60 AND 604800),
  window_opens         time NOT NULL,
  window_closes        time NOT NULL,
  spread_s             integer NOT NULL CHECK (spread_s BETWEEN 0 AND 7200),
  cycle_cap            integer NOT NULL CHECK (cycle_cap BETWEEN 1 AND 100),
  attribution_window_s integer NOT NULL CHECK (attribution_window_s BETWEEN 3600 AND 2592000),
  low_credits_at       integer NOT NULL CHECK (low_credits_at >= 0),
  updated_at           timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK (window_opens < window_closes),
  CHECK (text_delay_s >= idle_s)
);
-- Workers ask twice a second which shops are paused.
CREATE INDEX shop_sms_configs_paused ON shop_sms_configs (organization_id, shop_id) WHERE paused_at IS NOT NULL;

-- Keys of organizations and shops; stored hashed. The hash is unique over the deployment: it is looked up
-- before the tenant is known.
CREATE TABLE api_keys (
  organization_id uuid NOT NULL REFERENCES organizations,
  shop_id         uuid,
  key_id          uuid NOT NULL,
  kind            text NOT NULL CHECK (kind IN ('organization', 'shop_secret', 'shop_publishable')),
  secret_hash     bytea NOT NULL,
  created_at      timestamptz NOT NULL,
  expires_at      timestamptz,               -- set by a rotation: until then both keys are good
  revoked_at      timestamptz,
  last_used_at    timestamptz,               -- to the hour
  PRIMARY KEY (organization_id, key_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops,
  CHECK ((kind = 'organization') = (shop_id IS NULL))
);
CREATE UNIQUE INDEX api_keys_directory ON api_keys (secret_hash);

CREATE TABLE operator_keys (
  key_id       uuid PRIMARY KEY,
  secret_hash  bytea NOT NULL UNIQUE,
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz,
  revoked_at   timestamptz,
  last_used_at timestamptz
);

-- Switches of the whole deployment; a row that exists is thrown.
CREATE TABLE deployment_switches (
  name      text PRIMARY KEY CHECK (name IN ('sending_paused')),
  thrown_at timestamptz NOT NULL
);

CALL raise_tenant_wall('organizations', false);
CALL raise_tenant_wall('shops', true);
CALL raise_tenant_wall('shop_sms_configs', true);
CALL raise_tenant_wall('api_keys', true);

GRANT SELECT ON organizations, shops, shop_sms_configs TO cartwake_web, cartwake_operator, cartwake_engine;
GRANT UPDATE ON shop_sms_configs TO cartwake_web;
GRANT INSERT, UPDATE ON organizations, shops, shop_sms_configs, api_keys TO cartwake_operator;
GRANT SELECT ON api_keys, operator_keys, deployment_switches TO cartwake_operator;
-- A merchant makes and ends its own keys; not even their hashes can be read back.
GRANT SELECT (organization_id, shop_id, key_id, kind, created_at, expires_at, revoked_at, last_used_at), INSERT,
  UPDATE (expires_at, revoked_at) ON api_keys TO cartwake_web;
GRANT INSERT, UPDATE ON operator_keys TO cartwake_operator;
GRANT INSERT, DELETE ON deployment_switches TO cartwake_operator;
GRANT SELECT ON deployment_switches TO cartwake_engine, cartwake_web;

-- Who does this key belong to? Ids only; nothing for an unknown, a revoked or an expired one.
CREATE FUNCTION find_api_key(hash bytea, moment timestamptz)
RETURNS TABLE (kind text, key_id uuid, organization_id uuid, shop_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT k.kind, k.key_id, k.organization_id, k.shop_id
  FROM public.api_keys k
  WHERE k.secret_hash = hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > moment)
  UNION ALL
  SELECT 'operator', o.key_id, NULL, NULL
  FROM public.operator_keys o
  WHERE o.secret_hash = hash AND o.revoked_at IS NULL AND (o.expires_at IS NULL OR o.expires_at > moment)
$$;
GRANT SELECT ON api_keys, operator_keys TO cartwake_directory;

-- Remember that a key was used. Whoever calls it holds the key, whose tenant need not be known yet.
CREATE FUNCTION note_key_use(hash bytea, hour timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.api_keys SET last_used_at = hour
    WHERE secret_hash = hash AND (last_used_at IS NULL OR last_used_at < hour);
  UPDATE public.operator_keys SET last_used_at = hour
    WHERE secret_hash = hash AND (last_used_at IS NULL OR last_used_at < hour);
$$;
GRANT UPDATE (last_used_at) ON api_keys, operator_keys TO cartwake_directory;
