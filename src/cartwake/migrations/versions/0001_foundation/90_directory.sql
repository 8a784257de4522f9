-- The functions that find a tenant by a handle run as `cartwake_directory`, which may read just that.
GRANT CREATE ON SCHEMA public TO cartwake_directory;
DO $$
DECLARE
  f text;
BEGIN
  EXECUTE format('GRANT cartwake_directory TO %I', current_user);
  FOREACH f IN ARRAY ARRAY['find_api_key(bytea, timestamptz)', 'note_key_use(bytea, timestamptz)', 'find_short_link(bytea)',
                           'suppress_phone_everywhere(bytea, timestamptz)',
                           'pause_moved_deployment(timestamptz)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO cartwake_directory', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO cartwake_web', f);
  END LOOP;
END $$;
REVOKE CREATE ON SCHEMA public FROM cartwake_directory;
GRANT EXECUTE ON FUNCTION suppress_phone_everywhere(bytea, timestamptz) TO cartwake_engine;
GRANT EXECUTE ON FUNCTION find_api_key(bytea, timestamptz) TO cartwake_operator;
