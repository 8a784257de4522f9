-- Room `messages`: the texts that a shop wrote itself. A change is a new version; what was sent names its own.
CREATE TABLE sms_template_versions (
  organization_id uuid NOT NULL,
  shop_id         uuid NOT NULL,
  locale          text NOT NULL CHECK (locale ~ '^[a-z]{2}$'),
  version         integer NOT NULL CHECK (version > 0),
  text            text CHECK (char_length(text) BETWEEN 1 AND 1600),  -- null: the built-in text again
  changed_by      text NOT NULL,             -- the API key's id, or a member
  at              timestamptz NOT NULL,
  PRIMARY KEY (organization_id, shop_id, locale, version),
  FOREIGN KEY (organization_id, shop_id) REFERENCES shops
);

CALL raise_tenant_wall('sms_template_versions', true);
CALL make_append_only('sms_template_versions');

GRANT SELECT, INSERT ON sms_template_versions TO cartwake_web;
GRANT SELECT ON sms_template_versions TO cartwake_engine, cartwake_operator;
