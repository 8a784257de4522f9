-- Room `jobs`: periodic work, claimed here so that any number of schedulers run each task once.
CREATE TABLE periodic_tasks (
  name         text PRIMARY KEY,
  next_run_at  timestamptz NOT NULL,
  leased_until timestamptz,
  last_run_at  timestamptz,
  last_error   text
);
GRANT SELECT, INSERT, UPDATE ON periodic_tasks TO cartwake_engine;

-- Workers that live: each says so every few seconds, and takes its row away when it ends in good order.
CREATE TABLE worker_beats (
  worker_id  uuid PRIMARY KEY,
  version    text NOT NULL,                  -- of Cartwake
  started_at timestamptz NOT NULL,
  seen_at    timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON worker_beats TO cartwake_engine;

-- Where this database lives. A copy that was restored elsewhere finds another place here and starts paused: what
-- was sent after the backup is not in it.
CREATE TABLE deployment_home (
  only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  system_identifier bigint NOT NULL,
  database_oid      oid NOT NULL
);
GRANT SELECT ON deployment_home TO cartwake_operator;
GRANT INSERT, UPDATE ON deployment_home TO cartwake_operator;

-- By what the secret keys are known again, for the owner alone. A migration with others would let the processes in with
-- keys that read no phone and find no STOP.
CREATE TABLE deployment_keys (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  mark     bytea NOT NULL CHECK (octet_length(mark) = 32)
);

-- What the last migration left in the catalogue, by name. Whatever of it is missing later was lost, as by a restore that
-- was broken off; `cartwake migrate` and the doctor look.
CREATE TABLE deployment_schema (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  revision text NOT NULL,
  parts    text[] NOT NULL
);
GRANT SELECT ON deployment_schema TO cartwake_web;

CREATE FUNCTION pause_moved_deployment(moment timestamptz) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.deployment_switches (name, thrown_at)
  SELECT 'sending_paused', moment FROM public.deployment_home h, pg_control_system() c, pg_database d
  WHERE d.datname = current_database() AND (h.system_identifier, h.database_oid) <> (c.system_identifier, d.oid)
  ON CONFLICT (name) DO NOTHING;
  SELECT EXISTS (
    SELECT FROM public.deployment_home h, pg_control_system() c, pg_database d
    WHERE d.datname = current_database() AND (h.system_identifier, h.database_oid) <> (c.system_identifier, d.oid)
  )
$$;
GRANT SELECT ON deployment_home, deployment_switches TO cartwake_directory;
GRANT INSERT ON deployment_switches TO cartwake_directory;
