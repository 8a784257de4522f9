#!/bin/sh
# `cartwake WORDS` with the settings and secrets of the systemd units: what is for people to run, like `cartwake doctor`.
# For root, who alone can read the secrets. Goes to /usr/local/sbin/cartwake.
set -eu
set -a
. /etc/cartwake/cartwake.env
CARTWAKE_SECRET_KEYS_FILE=/etc/cartwake/secrets/secret_keys
CARTWAKE_DATABASE_URL_FILE="${CARTWAKE_DATABASE_URL_FILE:-/etc/cartwake/secrets/database_url}" # another, for a restored copy
CARTWAKE_TWILIO_AUTH_TOKEN_FILE=/etc/cartwake/secrets/twilio_auth_token
set +a
cd /
exec /opt/cartwake/bin/cartwake "$@"
