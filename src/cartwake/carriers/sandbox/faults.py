"""What goes wrong, and for whom.

Whether a fault strikes is decided by a hash of seed, fault and attempt, never by a shared random
source: the same texts are struck in every run, however requests interleave.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, le=1)]
FaultName = Literal[
    "latency",
    "throttle",
    "error_before",
    "error_after",
    "drop_after",
    "lost_callback",
    "late_callback",
    "duplicate_callback",
    "reordered_callback",
]


class Faults(BaseModel):
    """The faults in force. Every `…_rate` is a probability; all are 0 unless set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    latency_rate: Rate = Field(1.0, description="Sends answered late, after the text was taken or refused.")
    latency_ms: int = Field(0, ge=0, le=60_000, description="How late, in real milliseconds.")
    throttle_rate: Rate = Field(0.0, description="Sends answered 429 (20429); the text is not taken.")
    retry_after_s: int = Field(1, ge=0, le=3600, description="`Retry-After` of those answers.")
    error_before_rate: Rate = Field(0.0, description="Sends answered 500 (20500); the text is not taken.")
    error_after_rate: Rate = Field(0.0, description="Sends answered 500 although the text was taken.")
    drop_after_rate: Rate = Field(0.0, description="Connections dropped without an answer; the text was taken.")
    lost_callback_rate: Rate = Field(0.0, description="Status callbacks never sent.")
    late_callback_rate: Rate = Field(0.0, description="Status callbacks sent late.")
    late_callback_ms: int = Field(2_000, ge=0, le=600_000, description="How late, in real milliseconds.")
    duplicate_callback_rate: Rate = Field(0.0, description="Status callbacks sent twice.")
    reordered_callback_rate: Rate = Field(0.0, description="Texts whose last callback comes before `sent`.")

    def strikes(self, fault: FaultName, key: str) -> bool:
        """Whether `fault` strikes the attempt (or the callback) that `key` names."""
        rate: float = getattr(self, f"{fault}_rate")
        if rate <= 0:
            return False
        digest = hashlib.blake2b(f"{self.seed}|{fault}|{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < rate * 2**64
