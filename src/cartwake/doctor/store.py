"""What the doctor asks of PostgreSQL's own catalogue. No table of ours is read here."""

SERVER = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_num,
       current_setting('server_encoding') AS encoding, current_database() AS database,
       COALESCE(host(inet_server_addr()), 'a local socket') AS host, inet_server_port() AS port
"""
# To compare two clocks is the one reason to ask the database for the time.
SERVER_TIME = """
SELECT clock_timestamp() AS at
"""
OWN_RIGHTS = """
SELECT r.rolname AS login, r.rolsuper OR r.rolcreaterole AS may_create_roles,
       r.rolsuper OR pg_has_role(d.datdba, 'USAGE') AS owns_database
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
"""
# What each of our logins has that none of them needs.
TOO_MUCH = """
SELECT r.rolname AS login, array_remove(ARRAY[
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
    CASE WHEN r.rolreplication THEN 'REPLICATION' END
  ]
  || ARRAY(SELECT 'member of ' || g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
           WHERE m.member = r.oid ORDER BY g.rolname)
  || ARRAY(SELECT 'owner of ' || c.relname FROM pg_class c
           WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p') ORDER BY c.relname), NULL) AS rights
FROM pg_roles r WHERE r.rolname = ANY(%s) ORDER BY r.rolname
"""
# Tables that hold a tenant's rows, and whether the wall stands.
TENANT_TABLES = """
SELECT c.relname AS name,
       c.relrowsecurity AND c.relforcerowsecurity
         AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) AS walled
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  AND EXISTS (SELECT FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attname = 'organization_id' AND NOT a.attisdropped)
ORDER BY c.relname
"""
