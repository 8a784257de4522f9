-- Room `messages`: the texts. A message row is its own job: state and due_at say what is to be done, and when.
CREATE TABLE sms_messages (
  organization_id  uuid NOT NULL,
  shop_id          uuid NOT NULL,
  message_id       uuid NOT NULL,
  session_id       uuid NOT NULL,
  kind             text NOT NULL CHECK (kind IN ('cart_recovery')),
  step             smallint NOT NULL CHECK (step >= 1),
  state            text NOT NULL CHECK (state IN ('scheduled', 'held', 'dropped', 'sending', 'accepted', 'rejected',
                     'unknown', 'not_accepted', 'unresolved', 'sent', 'delivered', 'undelivered', 'failed',
                     'delivery_unknown')),
  due_at           timestamptz NOT NULL,
  reason           text,                     -- why it is held, or ended as it did
  attempts         integer NOT NULL DEFAULT 0,
  -- Written by the claim; the attempt is the credits' reservation too.
  attempt_id       uuid,
  attempted_at     timestamptz,
  lease_until      timestamptz,
  sender_id        uuid,
  phone_sealed     bytea,
  phone_hash       bytea,
  phone_country    char(2),
  body_sealed      bytea,
  locale           text,                     -- that the text is in
  template_version integer,                  -- of the shop's own text; null: the built-in one
  segments         smallint,
  credits          integer,
  send_until       timestamptz,              -- the window's end: neither we nor the carrier may go past it
  -- Written by the carrier's answers.
  carrier_sid      text,
  accepted_at      timestamptz,
  sent_at          timestamptz,              -- of the receipt that says the carrier passed it on
  error_code       integer,
  ended_at         timestamptz,
  traceparent      text CHECK (char_length(traceparent) = 55),  -- the session's when it was scheduled
  created_at       timestamptz NOT NULL,
  updated_at       timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, message_id),
  UNIQUE (organization_id, shop_id, session_id, kind, step),
  FOREIGN KEY (organization_id, shop_id, session_id) REFERENCES checkout_sessions,
  FOREIGN KEY (organization_id, shop_id, sender_id) REFERENCES senders,
  FOREIGN KEY (organization_id, shop_id, locale, template_version) REFERENCES sms_template_versions
);
CREATE INDEX sms_messages_due ON sms_messages (organization_id, shop_id, due_at) WHERE state IN ('scheduled', 'held');
CREATE INDEX sms_messages_in_flight ON sms_messages (lease_until) WHERE state = 'sending';
CREATE INDEX sms_messages_by_attempt ON sms_messages (attempt_id) WHERE attempt_id IS NOT NULL;
CREATE INDEX sms_messages_by_sid ON sms_messages (carrier_sid) WHERE carrier_sid IS NOT NULL;
-- Both lists are short: what is in doubt is asked about every minute, and little ends unresolved.
CREATE INDEX sms_messages_in_doubt ON sms_messages (updated_at) WHERE state = 'unknown';
CREATE INDEX sms_messages_unresolved ON sms_messages (message_id) WHERE state IN ('unknown', 'unresolved');
CREATE INDEX sms_messages_awaiting_receipt ON sms_messages (accepted_at) WHERE state IN ('accepted', 'sent');

-- One row per shop: when its next message is due, whose turn it is, and what its cycle has spent. A claim
-- locks this row, so a shop's allowance is counted by one worker at a time, and shops rotate.
CREATE TABLE sms_shop_queues (
  organization_id  uuid NOT NULL,
  shop_id          uuid NOT NULL,
  next_due_at      timestamptz,              -- null: nothing waits
  turn_at          timestamptz NOT NULL,     -- last served; the longest unserved goes first
  cycle_started_at timestamptz NOT NULL,
  cycle_used       integer NOT NULL CHECK (cycle_used >= 0),
  PRIMARY KEY (organization_id, shop_id),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops
);
CREATE INDEX sms_shop_queues_next ON sms_shop_queues (next_due_at) WHERE next_due_at IS NOT NULL;

-- Every evaluation, at scheduling and at dispatch: which gate said what, and why.
CREATE TABLE sms_decisions (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  decision_id     uuid NOT NULL,
  session_id      uuid NOT NULL,
  message_id      uuid,
  gate            text NOT NULL,
  outcome         text NOT NULL CHECK (outcome IN ('refuse', 'schedule', 'hold', 'drop', 'send')),
  reason          text NOT NULL,
  until           timestamptz,
  at              timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, decision_id),
  FOREIGN KEY (organization_id, shop_id, session_id) REFERENCES checkout_sessions
);
CREATE INDEX sms_decisions_by_session ON sms_decisions (organization_id, shop_id, session_id, at);

-- When a phone was last texted by any shop of the deployment: the 24-hour cap. No tenant may read it.
CREATE TABLE recipient_texts (
  phone_hash bytea PRIMARY KEY,
  message_id uuid NOT NULL,
  texted_at  timestamptz NOT NULL
);

-- What carriers told us, as it came in: verified, sealed, answered; then worked off in order of arrival.
CREATE TABLE carrier_events (
  event_id       uuid PRIMARY KEY,
  kind           text NOT NULL CHECK (kind IN ('status', 'inbound')),
  inbound_sid    text UNIQUE,                -- the carrier's id of a shopper's text: each is worked off once
  payload_sealed bytea NOT NULL,
  received_at    timestamptz NOT NULL,
  processed_at   timestamptz,
  outcome        text,
  error          text,                       -- of one that was set aside: the kind, never what it quoted
  CHECK ((kind = 'inbound') = (inbound_sid IS NOT NULL))
);
CREATE INDEX carrier_events_waiting ON carrier_events (event_id) WHERE processed_at IS NULL;
CREATE INDEX carrier_events_set_aside ON carrier_events (event_id) WHERE outcome IN ('unreadable', 'failed');

CALL raise_tenant_wall('sms_messages', true);
CALL raise_tenant_wall('sms_shop_queues', true);
CALL raise_tenant_wall('sms_decisions', true);

GRANT SELECT ON sms_messages, sms_decisions, sms_shop_queues TO cartwake_web, cartwake_operator;
GRANT INSERT ON carrier_events TO cartwake_web;
GRANT INSERT ON sms_shop_queues TO cartwake_operator;
GRANT SELECT, INSERT, UPDATE ON sms_messages, sms_shop_queues TO cartwake_engine;
GRANT SELECT, INSERT ON sms_decisions TO cartwake_engine;
GRANT SELECT, INSERT, UPDATE, DELETE ON recipient_texts TO cartwake_engine;
GRANT SELECT, INSERT, UPDATE ON carrier_events TO cartwake_engine;
