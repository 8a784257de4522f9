-- Answers to POSTs that came with an `Idempotency-Key`: whoever sends one again gets the first one's answer. Written in
-- the transaction of the work itself. Keys are hashed and answers sealed: either may hold what is shown once, or a phone.
CREATE TABLE idempotent_answers (
  organization_id uuid NOT NULL REFERENCES organizations,
  shop_id         uuid,                      -- null: sent with the organization's key
  key_hash        bytea NOT NULL,
  request_hash    bytea NOT NULL,            -- of method, address and body: the key answers for this request alone
  answer_sealed   bytea NOT NULL,            -- JSON: status and body
  created_at      timestamptz NOT NULL,
  UNIQUE NULLS NOT DISTINCT (organization_id, key_hash, shop_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops
);
CREATE INDEX idempotent_answers_by_age ON idempotent_answers (created_at);

-- The same for the operator, who is no tenant.
CREATE TABLE operator_idempotent_answers (
  key_hash      bytea PRIMARY KEY,
  request_hash  bytea NOT NULL,
  answer_sealed bytea NOT NULL,
  created_at    timestamptz NOT NULL
);
CREATE INDEX operator_idempotent_answers_by_age ON operator_idempotent_answers (created_at);

CALL raise_tenant_wall('idempotent_answers', true);

GRANT SELECT, INSERT ON idempotent_answers TO cartwake_web;
GRANT SELECT, INSERT ON operator_idempotent_answers TO cartwake_operator;
-- Sweeping them out needs to know no more than their age.
GRANT SELECT (created_at), DELETE ON idempotent_answers, operator_idempotent_answers TO cartwake_engine;
