"""What `cartwake doctor`, and worker and scheduler at their start, say of a Redis that is not fit for its task."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from cartwake.cli.plumbing import say_what_ails_the_queue
from cartwake.doctor.examine import examine
from cartwake.doctor.model import Finding, Verdict
from cartwake.kit.config import Settings
from ports import free_port
from queue_server import QueueServer, queue_server

PASSWORD = "not-to-be-shown"
NOBODY = f"redis://127.0.0.1:{free_port()}/0"


def settings_for(url: str, prefix: str = "bull") -> Settings:
    """A deployment on this queue, whose carrier is nowhere."""
    return Settings(queue=SecretStr(url), queue_prefix=prefix, twilio_api_base=f"http://127.0.0.1:{free_port()}")


async def examined(settings: Settings) -> Finding:
    found = await examine(settings, None, "none is needed here")
    (finding,) = [each.finding for each in found if each.check.name == "queue"]
    assert PASSWORD not in finding.said + finding.mend
    return finding


async def test_times_that_postgresql_keeps_need_no_queue() -> None:
    assert (await examined(Settings(queue="postgres"))).verdict is Verdict.OK


async def test_a_queue_that_is_fit_is_told_so(valkey: QueueServer, capsys: pytest.CaptureFixture[str]) -> None:
    finding = await examined(settings_for(valkey.url))
    assert (finding.verdict, finding.mend) == (Verdict.OK, "")
    await say_what_ails_the_queue(settings_for(valkey.url))
    assert capsys.readouterr().err == ""


# How the server is started, the user part of the address, and what has to be said.
AILING: dict[str, tuple[tuple[str, ...], str, Verdict, str, str]] = {
    "no password given": (("--requirepass", PASSWORD), "", Verdict.FAIL, "password is missing", "redis://:password@"),
    "a wrong password": (("--requirepass", PASSWORD), ":wrong@", Verdict.FAIL, "refuses the user or", "%40"),
    "a user who may not": (
        ("--user", "reader", "on", f">{PASSWORD}", "~*", "+@read"),
        f"reader:{PASSWORD}@",
        Verdict.FAIL,
        "may not do",
        "+@all -@dangerous",
    ),
    "a replica": (("--replicaof", "127.0.0.1 1"), "", Verdict.FAIL, "read-only replica", "primary"),
    "too few replicas": (("--min-replicas-to-write", "1"), "", Verdict.FAIL, "too few replicas", "min-replicas"),
    "full": (("--maxmemory", "1"), "", Verdict.FAIL, "memory is full", "maxmemory"),
    "one that evicts": (("--maxmemory-policy", "allkeys-lru"), "", Verdict.WARN, "allkeys-lru", "noeviction"),
    "one that forgets": (("--appendonly", "no"), "", Verdict.WARN, "forgets its jobs", "appendonly yes"),
    "a cluster": (("--cluster-enabled", "yes"), "", Verdict.FAIL, "cluster", "CARTWAKE_QUEUE_PREFIX={bull}"),
}


@pytest.mark.parametrize("case", AILING)
async def test_what_ails_a_queue_is_said_with_what_to_do(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, user, verdict, said, mend = AILING[case]
    with queue_server("valkey", tmp_path, *arguments) as server:
        settings = settings_for(server.url.replace("redis://", f"redis://{user}"))
        finding = await examined(settings)
        assert finding.verdict is verdict
        assert said in finding.said
        assert mend in finding.mend
        await say_what_ails_the_queue(settings)
        err = capsys.readouterr().err
        assert said in err and PASSWORD not in err


async def test_one_that_does_not_answer_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    finding = await examined(settings_for(NOBODY))
    assert (finding.verdict, "does not answer" in finding.said) == (Verdict.FAIL, True)
    await say_what_ails_the_queue(settings_for(NOBODY))
    assert capsys.readouterr().err.count("does not answer") == 1


async def test_a_queue_that_somebody_paused_is_told(valkey: QueueServer) -> None:
    settings = settings_for(valkey.url, "test-paused")
    with ExitStack() as after:
        client = valkey.client()
        after.callback(client.delete, "test-paused:cartwake-texts:meta")
        client.hset("test-paused:cartwake-texts:meta", "paused", "1")
        finding = await examined(settings)
    assert (finding.verdict, "cartwake-texts is paused" in finding.said) == (Verdict.FAIL, True)
