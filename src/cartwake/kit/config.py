"""Every setting of a deployment: `CARTWAKE_*` environment variables, checked once at start.

A secret may come from a file instead: `CARTWAKE_<NAME>_FILE` names it. A setting's description says its
meaning; `cartwake config` prints them all (`cartwake.kit.config_listing`). What a merchant may choose for a
shop is not here: it is a row of `shop_sms_configs`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cartwake.kit.clock import open_clock
from cartwake.kit.queues import QUEUE_CONCURRENCY, QueueConcurrency, QueueRate, QueueSetting
from cartwake.kit.rates import Rate

PREFIX, FILE_SUFFIX = "CARTWAKE_", "_FILE"
SECRET_FILE_MAX_BYTES = 64 * 1024

# The secrets of a deployment that never leaves this machine. `production` refuses them.
DEVELOPMENT_SECRET = "development-only-secret-key-not-for-production"  # noqa: S105 - that is its point
DEVELOPMENT_TOKEN = "development-auth-token"  # noqa: S105

# An empty value says something here: no outcome is refunded. Elsewhere it is a variable that was not filled in.
MAY_BE_EMPTY = frozenset({"refund_on"})

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")

# `600/100`: so many a minute, so many at once. None is no limit.
RateSetting = Annotated[Rate | None, NoDecode, BeforeValidator(lambda v: Rate.parse(v) if isinstance(v, str) else v)]


class ConfigError(Exception):
    """A setting is wrong; the message names each one and says why, and never shows its value."""


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(env_prefix="CARTWAKE_", frozen=True, extra="ignore")

    environment: Literal["development", "production"] = Field(
        "development", description="`production` refuses development secrets and plain-http public addresses."
    )
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (SecretStr(DEVELOPMENT_SECRET),),
        description="Root secrets, comma separated, newest first, each at least 32 characters. Everything "
        "encrypted, hashed or signed depends on them: keep the old ones behind the new one.",
    )
    data_dir: Path | None = Field(
        None,
        description="Folder of the embedded PostgreSQL. Default: `.cartwake` in the working folder.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="A PostgreSQL server (15 or newer) to use instead of the embedded one; a login that owns the "
        "database and may create roles. The four least-privilege logins are derived from it.",
    )
    database_pool_size: int = Field(
        10,
        ge=1,
        le=200,
        json_schema_extra={"unit": "connections"},
        description="Connections that one process may open per login.",
    )
    database_prepare: bool = Field(
        True, description="Whether statements are prepared. Switch it off behind a pooler that cannot carry them."
    )
    queue: QueueSetting = Field(
        "postgres",
        description="What keeps the times: `postgres`, or BullMQ on a Redis or Valkey, as redis://user:password@host"
        ":6379/0 or rediss:// for TLS. BullMQ needs the extra cartwake[bullmq]; see docs/bullmq.md.",
    )
    queue_prefix: str = Field(
        "bull",
        pattern=r"^[\w{}.:-]{1,100}$",
        description="What BullMQ's keys begin with. Deployments that share a Redis need different ones.",
    )
    queue_concurrency: QueueConcurrency = Field(
        QUEUE_CONCURRENCY,
        description="Jobs that one process takes at a time, as texts=500,maintenance=1; of email, that all of your "
        "senders together run at a time.",
    )
    queue_rate: QueueRate = Field(
        {},
        description="Jobs per second over all processes, as texts=50,maintenance=10; a queue not named has no limit. "
        "With a limit on texts, no more messages are claimed than jobs fire.",
    )
    queue_email: bool = Field(
        False,
        description="With BullMQ: put each abandoned cart's e-mail step into the queue cartwake-email, for a sender of "
        "your own. See docs/bullmq.md.",
    )
    clock: str = Field("system", description="`system`, or `virtual:<clock file>` for demonstrations and tests.")
    public_url: str = Field(
        "http://127.0.0.1:8080",
        description="Where shoppers and the carrier reach this deployment; short links and callbacks begin with it.",
    )
    host: str = Field("127.0.0.1", description="Address that the web process listens on.")
    port: int = Field(
        8080,
        ge=1,
        le=65535,
        json_schema_extra={"unit": "TCP port"},
        description="Port that the web process listens on.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        json_schema_extra={"unit": "TCP port"},
        description="Port on which a process serves /metrics, and nothing else does; 0: none.",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address of that port. Beyond this machine it needs CARTWAKE_METRICS_TOKEN."
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="Bearer token that a scraper shows, at least 16 characters. Without one, whoever reaches the port "
        "may look.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="Where traces go: an OTLP/HTTP collector, like http://127.0.0.1:4318. Needs the extra "
        "cartwake[otel]. The standard OTEL_EXPORTER_OTLP_ENDPOINT does too; without either nothing is traced.",
    )
    trusted_proxies: str = Field(
        "127.0.0.1",
        description="Addresses or networks of proxies, comma separated, whose X-Forwarded-For says where a request "
        "comes from; `*`: whoever calls.",
    )
    rate_operator: RateSetting = Field(
        Rate(1200, 600),
        description="Requests that one operator key may make per minute and at once, in one web process; or `off`.",
    )
    rate_organization: RateSetting = Field(Rate(1200, 600), description="The same for an organization's key.")
    rate_shop_secret: RateSetting = Field(Rate(12000, 3000), description="The same for a shop's secret key.")
    rate_shop_publishable: RateSetting = Field(Rate(6000, 1000), description="The same for a shop's publishable key.")
    rate_bad_keys: RateSetting = Field(
        Rate(60, 200), description="Unknown API keys that one address may try per minute and at once; or `off`."
    )
    twilio_api_base: str = Field(
        "https://api.twilio.com", description="Base address of the carrier's API; any Twilio-compatible server."
    )
    twilio_account_sid: str = Field("AC" + "0" * 32, description="Account SID at the carrier.")
    twilio_auth_token: SecretStr = Field(
        SecretStr(DEVELOPMENT_TOKEN), description="Auth token at the carrier; it also signs its webhooks."
    )
    twilio_concurrency: int = Field(
        64, ge=1, le=1000, json_schema_extra={"unit": "calls"}, description="Calls to the carrier in flight per worker."
    )
    twilio_timeout_s: float = Field(
        10.0, gt=0, le=60, description="Machine seconds to wait for the carrier's answer before it counts as unknown."
    )
    refund_on: Annotated[tuple[Literal["undelivered", "failed"], ...], NoDecode] = Field(
        ("undelivered", "failed"),
        description="Final outcomes, comma separated, after which a text's credits go back: undelivered, failed.",
    )
    webhook_timeout_s: float = Field(
        5.0, gt=0, le=30, description="Machine seconds to wait for a shop's server to take a reply; then again later."
    )
    dispatch_batch: int = Field(
        500,
        ge=1,
        le=5000,
        json_schema_extra={"unit": "messages"},
        description="Messages that a worker claims at a time.",
    )
    abandonment_batch: int = Field(
        1000,
        ge=1,
        le=10000,
        json_schema_extra={"unit": "sessions"},
        description="Sessions that a scan claims at a time.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line logged.")
    log_format: Literal["json", "console"] = Field("console", description="`json` for machines, `console` for people.")

    @field_validator("secret_keys", "refund_on", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _filled_in(cls, value: Any, info: ValidationInfo) -> Any:
        if value == "" and info.field_name not in MAY_BE_EMPTY:
            raise ValueError("is empty: give it a value, or unset it")
        return value

    @field_validator("secret_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not value or any(len(secret.get_secret_value()) < 32 for secret in value):
            raise ValueError("needs at least one secret, and each must have at least 32 characters")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database_address(value.get_secret_value())
        return value

    @field_validator("clock")
    @classmethod
    def _clock(cls, value: str) -> str:
        open_clock(value)
        return value

    @field_validator("twilio_account_sid")
    @classmethod
    def _account_sid(cls, value: str) -> str:
        # Twilio's are AC and 32 hex digits; compatible servers have others. It becomes part of an address.
        if not re.fullmatch(r"[A-Za-z0-9_-]{2,64}", value):
            raise ValueError("must be an account SID, like AC and 32 hexadecimal digits")
        return value

    @field_validator("public_url", "twilio_api_base", "otlp_endpoint")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        wrong = ValueError("must be an http or https address without a query, like https://sms.example.com")
        try:
            parts = urlsplit(value)
            host, _port = parts.hostname, parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or "@" in parts.netloc:
            raise wrong
        return value.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        for each in value.split(","):
            if each.strip() == "*":
                continue
            try:
                ipaddress.ip_network(each.strip())
            except ValueError:
                raise ValueError("must be addresses or networks, comma separated, like 10.0.0.1, 10.1.0.0/16") from None
        return value

    @field_validator("metrics_token")
    @classmethod
    def _not_guessable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters")
        return value

    @field_validator("public_url")
    @classmethod
    def _no_underscore(cls, value: str) -> str:
        # Twilio refuses status callback hosts with an underscore (Messages resource documentation).
        if "_" in (urlsplit(value).hostname or ""):
            raise ValueError("its host name must not contain an underscore: the carrier refuses such callbacks")
        return value

    @property
    def queue_url(self) -> str | None:
        """Address of the Redis that BullMQ is on; None where PostgreSQL keeps the times itself."""
        return self.queue.get_secret_value() if isinstance(self.queue, SecretStr) else None

    def model_post_init(self, _context: Any, /) -> None:
        if self.metrics_port and self.metrics_token is None and self.metrics_host not in LOOPBACK_HOSTS:
            raise ValueError(
                "CARTWAKE_METRICS_TOKEN: must be set when CARTWAKE_METRICS_HOST is not an address of this machine"
            )
        if self.environment == "production" and (wrong := list(not_for_production(self))):
            raise ValueError("\n".join(wrong))


def not_for_production(settings: Settings) -> list[str]:
    """What of these settings must not be used by a deployment that others can reach; a line for each."""
    wrong = []
    if any(secret.get_secret_value() == DEVELOPMENT_SECRET for secret in settings.secret_keys):
        wrong.append("CARTWAKE_SECRET_KEYS: must be set in production; the development secret is public")
    if settings.twilio_auth_token.get_secret_value() == DEVELOPMENT_TOKEN:
        wrong.append(
            "CARTWAKE_TWILIO_AUTH_TOKEN: must be set in production; with the public one anybody signs webhooks"
        )
    if not settings.public_url.startswith("https://"):
        wrong.append("CARTWAKE_PUBLIC_URL: must begin with https:// in production")
    return wrong


def check_database_address(address: str) -> None:
    """Raise `ValueError` when PostgreSQL's library could not read `address`. Never says what stands in it."""
    try:
        parts = conninfo_to_dict(address)
    except psycopg.ProgrammingError:  # whose message quotes it, password and all
        raise ValueError(
            "is no address that PostgreSQL's library can read, like postgresql://user:password@host:5432/cartwake "
            "(in it, a character like @ : / ? # or % in a password is written as %40 and so on)"
        ) from None
    host, ports = str(parts.get("host", "")), str(parts.get("port", ""))
    if "@" in host.lstrip("@"):
        raise ValueError("holds an @ too many: in a password it is written as %40")
    if any(port and not (port.isdecimal() and 0 < int(port) < 65536) for port in ports.split(",")):
        raise ValueError("its port must be a number from 1 to 65535")
    if not parts.get("dbname"):
        raise ValueError("names no database: end it with one, like postgresql://user:password@host:5432/cartwake")


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and the files of secrets.

    Raises `ConfigError` naming every wrong setting and why it is wrong.
    """
    given, wrong = read_secret_files(os.environ)
    try:
        settings = Settings(**{**given, **overrides})
    except ValidationError as error:
        raise ConfigError("\n".join([*wrong, *_explained(error, alone=not wrong)])) from None
    if wrong:
        raise ConfigError("\n".join(wrong))
    return settings


@cache
def secret_settings() -> tuple[str, ...]:
    """The names of the settings that are secrets, and so may come from files."""
    return tuple(name for name, field in Settings.model_fields.items() if _mentions_secret(field.annotation))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def read_secret_files(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The secrets that `CARTWAKE_<NAME>_FILE` variables point to, and a line for each that cannot be had."""
    found, wrong = {}, []
    present = {name.upper(): value for name, value in environ.items()}
    for name in secret_settings():
        path = present.get(variable(name) + FILE_SUFFIX)
        if path is None:
            continue
        try:
            if variable(name) in present:
                raise ValueError(f"{variable(name)} is set as well: unset one of the two")
            found[name] = _read_secret(path)
        except ValueError as error:
            wrong.append(f"{variable(name)}{FILE_SUFFIX}: {error}")
    return found, wrong


def _read_secret(path: str) -> str:
    """The text of a file without the line break at its end. Raises `ValueError` with the reason."""
    if not path:
        raise ValueError("is empty: name a file, or unset it")
    try:
        with Path(path).open("rb") as file:
            text = file.read(SECRET_FILE_MAX_BYTES + 1).decode()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None
    if len(text) > SECRET_FILE_MAX_BYTES:
        raise ValueError(f"{path} is larger than {SECRET_FILE_MAX_BYTES} bytes; no secret is")
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise ValueError(f"{path} is empty")
    return secret


def _explained(error: ValidationError, *, alone: bool) -> list[str]:
    """A line for each wrong value. `alone`: nothing else is wrong, so what the settings say together counts too."""
    lines = []
    for problem in error.errors(include_input=False):
        said = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            lines.append(f"{variable(str(problem['loc'][0]))}: {said}")
        elif alone:
            lines += said.splitlines()
    return list(dict.fromkeys(lines))


def _mentions_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_mentions_secret, get_args(annotation)))
