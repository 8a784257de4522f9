-- The logins, each with the least it needs. Passwords are set by `cartwake migrate`, not here.
--   cartwake_web        serves requests, one tenant at a time; without a tenant it sees no row
--   cartwake_operator   creates organizations, shops and keys, adjusts credits, throws kill switches
--   cartwake_engine     worker and scheduler: batches across all tenants
--   cartwake_directory  nobody logs in as it; it owns the few functions that find a tenant by a handle
DO $$
DECLARE
  login text;
BEGIN
  FOREACH login IN ARRAY ARRAY['cartwake_web', 'cartwake_operator', 'cartwake_engine', 'cartwake_directory'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', login);
    END IF;
  END LOOP;
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO cartwake_web, cartwake_operator, cartwake_engine, cartwake_directory;
-- So that /readyz can say whether the schema is the one that the code expects.
GRANT SELECT ON alembic_version TO cartwake_web;

-- Put the tenant wall around a table. Row-level security is forced, so not even the owner goes round it.
-- A shop's table narrows to the shop when one is set; an organization's key leaves it unset and sees all
-- of its shops. Where rows may be without a shop (keys), those are the organization's, and no shop sees them.
-- The operator and the engine work across tenants; the grants say on which tables.
CREATE PROCEDURE raise_tenant_wall(walled regclass, shop_level boolean) LANGUAGE plpgsql AS $$
DECLARE
  scope text := 'organization_id = NULLIF(current_setting(''cartwake.org'', true), '''')::uuid';
BEGIN
  IF shop_level THEN
    scope := scope
      || ' AND shop_id IS NOT DISTINCT FROM'
      || ' COALESCE(NULLIF(current_setting(''cartwake.shop'', true), '''')::uuid, shop_id)';
  END IF;
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', walled);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', walled);
  EXECUTE format('CREATE POLICY tenant ON %s TO cartwake_web USING (%s) WITH CHECK (%s)', walled, scope, scope);
  EXECUTE format('CREATE POLICY every_tenant ON %s TO cartwake_operator, cartwake_engine, cartwake_directory'
                 ' USING (true) WITH CHECK (true)', walled);
END $$;

-- For tables whose rows are evidence: nobody changes or removes them, whatever they were granted.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE PROCEDURE make_append_only(evidence regclass) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %s'
                 ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', evidence);
  EXECUTE format('CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON %s'
                 ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', evidence);
END $$;
