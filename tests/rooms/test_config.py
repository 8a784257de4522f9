"""The settings: what is wrong is named with its reason, secrets may come from files, and none is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from typed import Cartwake

SECRET = "a secret that is long enough to be one 1234567"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("port", "http", "valid integer"),
        ("port", "70000", "less than or equal to 65535"),
        ("port", "", "is empty: give it a value, or unset it"),
        ("environment", "staging", "'development' or 'production'"),
        ("secret_keys", "hunter2-hunter2", "at least 32 characters"),
        ("secret_keys", "", "is empty"),
        ("database_url", "hunter2", "is no address that PostgreSQL's library can read"),
        ("database_url", "mysql://u:hunter2@h/d", "is no address that PostgreSQL's library can read"),
        ("database_url", "postgresql://u:hun@ter2@h/d", "holds an @ too many: in a password it is written as %40"),
        ("database_url", "postgresql://u:hunter2@h:port/d", "its port must be a number"),
        ("database_url", "postgresql://u:hunter2@h", "names no database"),
        ("database_url", "", "is empty"),
        ("clock", "sundial", "must be 'system' or 'virtual:"),
        ("clock", "virtual:/nowhere", "cannot open the clock file: No such file"),
        ("clock", "virtual:/dev/null", "clock file"),
        ("public_url", "sms.example.com", "must be an http or https address"),
        ("public_url", "https://a:hunter2@sms.example.com", "must be an http or https address"),
        ("public_url", "https://[::1", "must be an http or https address"),
        ("public_url", "https://sms_1.example.com", "underscore"),
        ("twilio_account_sid", "AC 1", "must be an account SID"),
        ("twilio_timeout_s", "0", "greater than 0"),
        ("refund_on", "undelivered,lost", "'undelivered' or 'failed'"),
        ("queue", "rabbit://:hunter2@h", "must be postgres, or an address like redis://"),
        ("queue", "redis://:hunter2@h:port/0", "must be postgres, or an address like redis://"),
        ("queue", "", "is empty"),
        ("queue_prefix", "a b", "should match pattern"),
        ("queue_rate", "texts=0", "greater than or equal to 1"),
        ("queue_rate", "texts", "valid integer"),
        ("queue_concurrency", "faxes=1", "'texts', 'email' or 'maintenance'"),
    ],
)
def test_a_wrong_value_is_named_with_its_reason_and_not_shown(
    cartwake: Cartwake, name: str, value: str, reason: str
) -> None:
    for command in (["config", "--check"], ["audit"]) + ((["config"],) if "@" in value else ()):
        said = cartwake(*command, **{name: value})
        assert said.status == 2
        assert f"CARTWAKE_{name.upper()}: " in said.err and reason in said.err
        assert "hun" not in said.out + said.err


def test_everything_that_is_wrong_is_told_at_once(cartwake: Cartwake) -> None:
    said = cartwake("config", "--check", port="x", log_level="loud", secret_keys_file="/nowhere")
    assert [line.split(":")[0] for line in said.err.splitlines()[1:]] == [
        "CARTWAKE_SECRET_KEYS_FILE",
        "CARTWAKE_PORT",
        "CARTWAKE_LOG_LEVEL",
    ]


def test_production_refuses_what_is_public(cartwake: Cartwake) -> None:
    said = cartwake("config", "--check", environment="production")
    assert said.status == 2
    wrong = [line.split(":")[0] for line in said.err.splitlines()[1:]]
    assert wrong == ["CARTWAKE_SECRET_KEYS", "CARTWAKE_TWILIO_AUTH_TOKEN", "CARTWAKE_PUBLIC_URL"]
    good = {"secret_keys": SECRET, "twilio_auth_token": "t0ken", "public_url": "https://sms.example.com"}
    assert cartwake("config", "--check", environment="production", **good).status == 0


@pytest.mark.parametrize("name", ["secret_keys", "database_url", "twilio_auth_token"])
def test_a_secret_may_come_from_a_file(cartwake: Cartwake, tmp_path: Path, name: str) -> None:
    value = "postgresql://u:p@127.0.0.1/cartwake" if name == "database_url" else SECRET
    variable = f"CARTWAKE_{name.upper()}_FILE"
    file = tmp_path / "secret"
    for text in (value, value + "\n", value + "\r\n"):
        file.write_bytes(text.encode())
        said = cartwake("config", **{f"{name}_file": str(file)})
        assert said.status == 0, said.err
        assert f"CARTWAKE_{name.upper()}  [set by the file {file}]" in said.out
        assert value not in said.out

    def refused(path: Path, reason: str, **also: str) -> None:
        said = cartwake("config", "--check", **{f"{name}_file": str(path)}, **also)
        assert said.status == 2
        assert f"{variable}: " in said.err and reason in said.err
        assert value not in said.err and "no setting" not in said.out

    refused(file, f"CARTWAKE_{name.upper()} is set as well: unset one of the two", **{name: value})
    refused(tmp_path / "nothing", "No such file or directory")
    refused(tmp_path, "Is a directory")
    (tmp_path / "empty").write_text("\n")
    refused(tmp_path / "empty", "is empty")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    refused(tmp_path / "bytes", "is not a text file")
    (tmp_path / "large").write_text("x" * 70_000)
    refused(tmp_path / "large", "no secret is")


def test_a_secret_file_keeps_all_but_the_last_line_break(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cartwake: Cartwake
) -> None:
    from cartwake.kit.config import load_settings

    (tmp_path / "token").write_text(" two words\n\n")
    monkeypatch.setenv("CARTWAKE_TWILIO_AUTH_TOKEN_FILE", str(tmp_path / "token"))
    settings = load_settings()
    assert settings.twilio_auth_token.get_secret_value() == " two words\n"


def test_config_says_which_settings_are_set_and_from_where(cartwake: Cartwake) -> None:
    said = cartwake("config", port="8081", secret_keys=SECRET, refund_on="")
    assert said.status == 0
    assert "CARTWAKE_PORT  [set by the environment: 8081]\n    TCP port from 1 to 65535." in said.out
    assert "CARTWAKE_SECRET_KEYS  [set by the environment]" in said.out and SECRET not in said.out
    assert "CARTWAKE_TWILIO_TIMEOUT_S  [default: 10.0]\n    seconds more than 0 to 60." in said.out
    assert "CARTWAKE_TWILIO_AUTH_TOKEN  [default: a development secret]" in said.out


def test_config_lists_what_is_to_be_mended_even_when_a_value_is_wrong(cartwake: Cartwake) -> None:
    said = cartwake("config", port="x")
    assert said.status == 2
    assert "CARTWAKE_PORT  [set by the environment: x]" in said.out and "CARTWAKE_PORT: " in said.err


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("databse_url", "did you mean CARTWAKE_DATABASE_URL?"),
        ("twilio_auth_tokn_file", "did you mean CARTWAKE_TWILIO_AUTH_TOKEN_FILE?"),
        ("port_file", "only secrets are read from files: set CARTWAKE_PORT"),
        ("colour", "`cartwake config` lists those that are read"),
    ],
)
def test_a_misspelt_setting_is_warned_about(cartwake: Cartwake, tmp_path: Path, name: str, advice: str) -> None:
    assert f"CARTWAKE_{name.upper()} is no setting: {advice}" in cartwake("config", **{name: "secret-value"}).out
    started = cartwake("audit", data_dir=str(tmp_path), **{name: "secret-value"})
    assert f"CARTWAKE_{name.upper()}" in started.err and advice in started.err
    assert "secret-value" not in started.out + started.err
