-- Room `messages`: what shoppers wrote back that was neither STOP nor START. Those two are consent's to keep.
CREATE TABLE sms_replies (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  reply_id        uuid NOT NULL,
  carrier_sid     text NOT NULL,
  meaning         text NOT NULL CHECK (meaning IN ('help', 'other')),
  message_id      uuid,                      -- the shop's text that it answers, where one is known
  sent_to         text NOT NULL,             -- our number
  phone_sealed    bytea NOT NULL,
  phone_hash      bytea NOT NULL,
  body_sealed     bytea NOT NULL,
  received_at     timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, reply_id),
  -- A carrier may say the same thing twice.
  UNIQUE (organization_id, shop_id, carrier_sid),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops
);
CREATE INDEX sms_replies_by_phone ON sms_replies (organization_id, shop_id, phone_hash);

CALL raise_tenant_wall('sms_replies', true);

GRANT SELECT ON sms_replies TO cartwake_web;
GRANT SELECT, INSERT ON sms_replies TO cartwake_engine;
