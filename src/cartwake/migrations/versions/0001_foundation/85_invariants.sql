-- What the last look at each invariant came to. Counts only: `cartwake audit` shows the rows.
CREATE TABLE invariant_checks (
  invariant   text PRIMARY KEY,
  broken_rows integer NOT NULL CHECK (broken_rows >= 0),
  checked_at  timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON invariant_checks TO cartwake_engine;
