"""Every setting of a deployment: `CARTWAKE_*` environment variables, checked once at start.

A setting's description says its meaning and unit; `cartwake config` prints them all. What a merchant
may choose for a shop is not here: it is a row of `shop_sms_configs`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# The secret of a deployment that never leaves this machine. `production` refuses it.
DEVELOPMENT_SECRET = "development-only-secret-key-not-for-production"  # noqa: S105 - that is its point

# The queues on BullMQ. Nothing consumes `email` yet: the e-mail channel does not exist.
QueueKind = Literal["texts", "email", "maintenance"]
QUEUE_NAMES: dict[QueueKind, str] = {
    "texts": "cartwake-texts",
    "email": "cartwake-email",
    "maintenance": "cartwake-maintenance",
}
QUEUE_CONCURRENCY: dict[QueueKind, int] = {"texts": 500, "email": 50, "maintenance": 1}


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
    database_pool_size: int = Field(10, ge=1, le=200, description="Connections that one process may open per login.")
    database_prepare: bool = Field(
        True, description="Whether statements are prepared. Switch it off behind a pooler that cannot carry them."
    )
    queue: Literal["postgres"] | SecretStr = Field(
        "postgres",
        description="What keeps the times: `postgres`, or BullMQ on a Redis or Valkey, as redis://user:password@host"
        ":6379/0 or rediss:// for TLS. BullMQ needs the extra cartwake[bullmq]; see docs/bullmq.md.",
    )
    queue_prefix: str = Field(
        "bull",
        pattern=r"^[\w{}.:-]{1,100}$",
        description="What BullMQ's keys begin with. Deployments that share a Redis need different ones.",
    )
    queue_concurrency: Annotated[dict[QueueKind, Annotated[int, Field(ge=1, le=5000)]], NoDecode] = Field(
        QUEUE_CONCURRENCY,
        description="Jobs that one process takes at a time, as texts=500,maintenance=1. Nothing consumes `email` yet.",
    )
    queue_rate: Annotated[dict[QueueKind, Annotated[int, Field(ge=1, le=100_000)]], NoDecode] = Field(
        {},
        description="Jobs per second over all processes, as texts=50,maintenance=10; a queue not named has no limit. "
        "With a limit on texts, no more messages are claimed than jobs fire.",
    )
    clock: str = Field("system", description="`system`, or `virtual:<clock file>` for demonstrations and tests.")
    public_url: str = Field(
        "http://127.0.0.1:8080",
        description="Where shoppers and the carrier reach this deployment; short links and callbacks begin with it.",
    )
    host: str = Field("127.0.0.1", description="Address that the web process listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port that the web process listens on.")
    twilio_api_base: str = Field(
        "https://api.twilio.com", description="Base address of the carrier's API; any Twilio-compatible server."
    )
    twilio_account_sid: str = Field("AC" + "0" * 32, description="Account SID at the carrier.")
    twilio_auth_token: SecretStr = Field(
        SecretStr("development-auth-token"), description="Auth token at the carrier; it also signs its webhooks."
    )
    twilio_concurrency: int = Field(64, ge=1, le=1000, description="Calls to the carrier in flight per worker.")
    twilio_timeout_s: float = Field(
        10.0, gt=0, le=60, description="Machine seconds to wait for the carrier's answer before it counts as unknown."
    )
    refund_on: Annotated[tuple[Literal["undelivered", "failed"], ...], NoDecode] = Field(
        ("undelivered", "failed"),
        description="Final outcomes, comma separated, after which a text's credits go back: undelivered, failed.",
    )
    dispatch_batch: int = Field(500, ge=1, le=5000, description="Messages that a worker claims at a time.")
    abandonment_batch: int = Field(1000, ge=1, le=10000, description="Sessions that a scan claims at a time.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line logged.")
    log_format: Literal["json", "console"] = Field("console", description="`json` for machines, `console` for people.")

    @field_validator("secret_keys", "refund_on", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("queue_concurrency", "queue_rate", mode="before")
    @classmethod
    def _per_queue(cls, value: Any, info: ValidationInfo) -> Any:
        """`texts=500,maintenance=1`; what is not named keeps its default."""
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        defaults: dict[Any, Any] = QUEUE_CONCURRENCY if info.field_name == "queue_concurrency" else {}
        return defaults | {name.strip(): number.strip() for name, _, number in pairs}

    @field_validator("queue")
    @classmethod
    def _redis_address(cls, value: Any) -> Any:
        if not isinstance(value, SecretStr):
            return value
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.port == 0:
            raise ValueError("must be postgres, or an address like redis://127.0.0.1:6379/0 (rediss:// for TLS)")
        if not _installed("bullmq"):
            raise ValueError("needs the extra for BullMQ, which is not installed: pip install 'cartwake[bullmq]'")
        return value

    @field_validator("secret_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not value or any(len(secret.get_secret_value()) < 32 for secret in value):
            raise ValueError("needs at least one secret, and each must have at least 32 characters")
        return value

    @field_validator("public_url", "twilio_api_base")
    @classmethod
    def _web_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an http or https address without a query, like https://sms.example.com")
        return value.rstrip("/")

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
        if self.environment != "production":
            return
        if any(secret.get_secret_value() == DEVELOPMENT_SECRET for secret in self.secret_keys):
            raise ValueError("CARTWAKE_SECRET_KEYS must be set in production: the development secret is public")
        if not self.public_url.startswith("https://"):
            raise ValueError("CARTWAKE_PUBLIC_URL must begin with https:// in production")


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. Raises `ConfigError` naming every wrong setting and why it is wrong."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = "CARTWAKE_" + str(problem["loc"][0]).upper() if problem["loc"] else "configuration"
            lines.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
        raise ConfigError("\n".join(lines)) from None
