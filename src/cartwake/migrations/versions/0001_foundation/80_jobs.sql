-- Room `jobs`: periodic work, claimed here so that any number of schedulers run each task once.
CREATE TABLE periodic_tasks (
  name         text PRIMARY KEY,
  next_run_at  timestamptz NOT NULL,
  leased_until timestamptz,
  last_run_at  timestamptz,
  last_error   text
);
GRANT SELECT, INSERT, UPDATE ON periodic_tasks TO cartwake_engine;
