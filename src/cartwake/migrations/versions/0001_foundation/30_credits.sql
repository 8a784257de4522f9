-- Room `credits`: balances, the ledger that explains them, and reservations. It knows accounts, not texts.
-- Whoever changes any of the three holds the balance row's lock first.
CREATE TABLE org_sms_credit_balances (
  organization_id   uuid NOT NULL REFERENCES organizations,
  account           text NOT NULL,
  available_credits bigint NOT NULL CHECK (available_credits >= 0),
  last_entry_no     bigint NOT NULL CHECK (last_entry_no >= 0),
  updated_at        timestamptz NOT NULL,
  PRIMARY KEY (organization_id, account)
);

-- One per attempt; its id is the attempt's, so a retried claim cannot reserve twice.
CREATE TABLE sms_credit_reservations (
  organization_id uuid NOT NULL,
  account         text NOT NULL,
  reservation_id  uuid NOT NULL,
  subject_id      uuid NOT NULL,             -- what the credits are for: a message
  credits         integer NOT NULL CHECK (credits > 0),
  state           text NOT NULL CHECK (state IN ('reserved', 'confirmed', 'released')),
  reserved_at     timestamptz NOT NULL,
  settled_at      timestamptz,
  PRIMARY KEY (organization_id, account, reservation_id),
  FOREIGN KEY (organization_id, account) REFERENCES org_sms_credit_balances,
  CHECK ((state = 'reserved') = (settled_at IS NULL))
);
CREATE INDEX sms_credit_reservations_open ON sms_credit_reservations (organization_id, account, reserved_at)
  WHERE state = 'reserved';

CREATE TABLE org_sms_credit_ledger (
  organization_id uuid NOT NULL,
  account         text NOT NULL,
  entry_no        bigint NOT NULL CHECK (entry_no > 0),  -- 1, 2, 3 … of the account: times tie, and a gap would show
  entry_type      text NOT NULL CHECK (entry_type IN ('PURCHASE', 'TIER_REFILL', 'SEND_RESERVE', 'SEND_CONFIRM',
                    'SEND_REFUND', 'DELIVERY_REFUND', 'ADJUSTMENT', 'PURCHASE_REVERSAL')),
  credits         bigint NOT NULL,           -- signed change; 0 for SEND_CONFIRM, whose reserve already took them
  balance_after   bigint NOT NULL CHECK (balance_after >= 0),
  reservation_id  uuid,
  reference       text,                      -- what makes an entry happen once: a month, a checkout id
  note            text,
  at              timestamptz NOT NULL,
  PRIMARY KEY (organization_id, account, entry_no),
  FOREIGN KEY (organization_id, account) REFERENCES org_sms_credit_balances,
  FOREIGN KEY (organization_id, account, reservation_id) REFERENCES sms_credit_reservations,
  CHECK (CASE entry_type
           WHEN 'SEND_CONFIRM' THEN credits = 0
           WHEN 'ADJUSTMENT' THEN credits <> 0
           WHEN 'SEND_RESERVE' THEN credits < 0
           WHEN 'PURCHASE_REVERSAL' THEN credits < 0
           ELSE credits > 0
         END),
  CHECK ((reservation_id IS NOT NULL)
         = (entry_type IN ('SEND_RESERVE', 'SEND_CONFIRM', 'SEND_REFUND', 'DELIVERY_REFUND'))),
  CHECK (reference IS NOT NULL OR entry_type NOT IN ('PURCHASE', 'TIER_REFILL', 'PURCHASE_REVERSAL'))
);
-- Each thing happens once. Partial, so that an entry pays for one of the two and not for both.
CREATE UNIQUE INDEX org_sms_credit_ledger_per_reservation
  ON org_sms_credit_ledger (organization_id, account, reservation_id, entry_type) WHERE reservation_id IS NOT NULL;
CREATE UNIQUE INDEX org_sms_credit_ledger_per_reference
  ON org_sms_credit_ledger (organization_id, account, entry_type, reference) WHERE reference IS NOT NULL;

CALL raise_tenant_wall('org_sms_credit_balances', false);
CALL raise_tenant_wall('sms_credit_reservations', false);
CALL raise_tenant_wall('org_sms_credit_ledger', false);
CALL make_append_only('org_sms_credit_ledger');

GRANT SELECT ON org_sms_credit_balances, org_sms_credit_ledger, sms_credit_reservations TO cartwake_web;
GRANT SELECT, INSERT, UPDATE ON org_sms_credit_balances TO cartwake_operator, cartwake_engine;
GRANT SELECT, INSERT ON org_sms_credit_ledger TO cartwake_operator, cartwake_engine;
GRANT SELECT, INSERT, UPDATE ON sms_credit_reservations TO cartwake_engine;
GRANT SELECT ON sms_credit_reservations TO cartwake_operator;
