"""The operator's hand and eyes: what is made, what is refused and how, and that looking makes nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest

from cartwake.kit.config import DEVELOPMENT_SECRET
from cartwake.kit.embedded import has_cluster
from cartwake.kit.listen import open_port
from cartwake.trial import write_environment
from ports import free_port
from typed import Cartwake, Said

NOBODY = "0198c5a0-0000-7000-8000-000000000000"


@pytest.fixture
def there(cartwake: Cartwake, settled_url: str) -> Cartwake:
    """The command line of a deployment whose database is ready."""

    def run(*words: str, **environ: str) -> Said:
        return cartwake(*words, **{"database_url": settled_url} | environ)

    return run


@pytest.fixture
def organization(there: Cartwake) -> str:
    return there("org", "create", "Lino Namai").value("organization_id")


@pytest.fixture
def shop(there: Cartwake, organization: str) -> str:
    return there("shop", "create", organization, "Lino Namai", "--country", "LT").value("shop_id")


def test_an_organization_is_made_with_its_account(there: Cartwake, organization: str, fresh_url: str) -> None:
    with psycopg.connect(fresh_url) as conn:
        found = conn.execute("SELECT organization_id::text, available_credits FROM org_sms_credit_balances").fetchall()
    assert found == [(organization, 0)], "as the API makes it"
    refused = there("org", "create", "Lino Namai", "--plan", "GOLD")
    assert (refused.status, refused.err) == (2, "The plan must be one of FREE, PRO, ULTRA.\n")
    assert there("org", "create", "x" * 201).err == "The name must have 1 to 200 characters.\n"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--country", "ZZ"],
            "The country must be a country code of ISO 3166-1 alpha-2: two capital letters, like LT.\n",
        ),
        (
            ["--country", "lt"],
            "The country must be a country code of ISO 3166-1 alpha-2: two capital letters, like LT.\n",
        ),
        (["--country", "LT", "--locale", "l"], "The locale must be a language tag, like lt or lt-LT.\n"),
        (["--country", "LT", "--locale", "klingon please"], "The locale must be a language tag, like lt or lt-LT.\n"),
    ],
)
def test_a_shop_is_refused_as_the_api_refuses_it(
    there: Cartwake, organization: str, options: list[str], reason: str
) -> None:
    said = there("shop", "create", organization, "Lino Namai", *options)
    assert (said.status, said.out, said.err) == (1, "", reason)


def test_a_new_organization_s_credits_are_said_to_come(there: Cartwake) -> None:
    said = there("org", "create", "Lino Namai", "--plan", "ULTRA")
    assert "It has 0 credits until the month's 500 come" in said.err and "`cartwake credits adjust`" in said.err
    assert there("org", "create", "Lino Namai", "--plan", "FREE").err == ""


def test_credits_are_added_and_taken_away(there: Cartwake, organization: str) -> None:
    assert there("credits", "adjust", organization, "50", "--note", "welcome").out == "available_credits 50\n"
    assert there("credits", "adjust", organization, "-20", "--note", "by hand").out == "available_credits 30\n"
    assert there("credits", "adjust", "--note", "by hand", organization, "--", "-20").out == "available_credits 10\n"
    too_much = there("credits", "adjust", organization, "-11", "--note", "by hand")
    assert (too_much.status, too_much.err) == (1, "Only 10 credits are available.\n")
    assert "-20" in there("credits", "adjust", "--help").out
    assert there("credits", "adjust", organization, "--nte", "x", "5").status == 2, "a misspelt option is no number"


@pytest.mark.thorough
def test_organizations_and_shops_are_listed(there: Cartwake, organization: str, shop: str) -> None:
    other = there("org", "create", "Kavos\x1b[2J Krautuvė", "--plan", "FREE").value("organization_id")
    there("credits", "adjust", organization, "50", "--note", "welcome")
    first, second = there("org", "list").out.splitlines()
    assert first.startswith(f"{other}  FREE   created ") and first.endswith("0 credits  0 shops  Kavos�[2J Krautuvė")
    assert second.startswith(f"{organization}  PRO    created ") and second.endswith("50 credits  1 shops  Lino Namai")
    (line,) = there("shop", "list", organization).out.splitlines()
    assert line.startswith(f"{shop}  LT  en  created ") and line.endswith("  texts on  Lino Namai")
    assert there("shop", "list", other).out == ""
    assert there("shop", "list", NOBODY).err == "There is no such organization.\n"


@pytest.mark.thorough
def test_what_a_reader_was_told_of_stays_though_it_reads_no_more(settled_url: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    environ["CARTWAKE_DATABASE_URL"] = settled_url
    reader, writer = os.pipe()
    os.close(reader)  # as `| head -1`, which has seen enough
    command = [sys.executable, "-m", "cartwake", "org", "create", "Lino Namai"]
    ended = subprocess.run(command, env=environ, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert "Traceback" not in ended.stderr and "process.failed" not in ended.stderr
    with psycopg.connect(settled_url) as owner:
        assert owner.execute("SELECT name FROM organizations").fetchall() == [("Lino Namai",)]


@pytest.mark.thorough
def test_senders_and_credits_are_shown(there: Cartwake, organization: str, shop: str) -> None:
    sender = there("number", "add", organization, shop, "+37061000001").value("sender_id")
    assert there("number", "list", organization, shop).out == (
        f"{sender}  +37061000001  long_code  LT  10 segments/s\n"
    )
    assert there("number", "list", organization, NOBODY).err.startswith("The organization is known, but it has no shop")
    there("credits", "adjust", organization, "50", "--note", "welcome")
    assert there("credits", "show", organization).out == "available_credits 50\nreserved_credits 0\n"
    assert there("credits", "show", NOBODY).err == "There is no such organization.\n"


def test_whose_keys_nobody_knows_is_said(there: Cartwake) -> None:
    assert there("key", "list", NOBODY).err == "There is no such organization.\n"


def test_a_folder_that_cannot_be_written_to_is_one_clear_line(cartwake: Cartwake) -> None:
    said = cartwake("up", data_dir="/proc/nowhere")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("/proc/nowhere cannot be written to: ") and "CARTWAKE_DATA_DIR" in said.err


@pytest.mark.parametrize(
    ("code", "advice"), [("53100", "The database's disk is full."), ("25006", "The database takes no writes: ")]
)
def test_a_database_that_cannot_write_is_one_clear_line(
    there: Cartwake, fresh_url: str, code: str, advice: str
) -> None:
    refuse = (
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE USING ERRCODE = '{code}'; END$$;"
    )
    with psycopg.connect(fresh_url, autocommit=True) as owner:
        owner.execute(refuse.encode())
        owner.execute("CREATE TRIGGER refuse BEFORE INSERT ON organizations EXECUTE FUNCTION refuse()")
    said = there("org", "create", "Lino Namai")
    assert (said.status, said.out) == (1, "") and said.err.startswith(advice) and len(said.err.splitlines()) == 1


def test_a_database_without_a_connection_to_spare_is_told_as_that(there: Cartwake, fresh_url: str) -> None:
    name = psycopg.sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(fresh_url)["dbname"]))
    with psycopg.connect(fresh_url, autocommit=True) as owner:
        owner.execute(psycopg.sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(name))
        try:
            said = there("org", "list")
        finally:
            owner.execute(psycopg.sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
    assert said.status == 1 and "has no connection to spare" in said.err and "Start it" not in said.err


def test_explain_and_number_add_say_which_id_is_wrong(there: Cartwake, organization: str, shop: str) -> None:
    other = there("org", "create", "Kavos Krautuvė").value("organization_id")
    for words in (["explain", "{}", "{}", "cart-1"], ["number", "add", "{}", "{}", "+37061000001"]):

        def of(first: str, second: str, words: list[str] = words) -> Said:
            ids = iter((first, second))
            return there(*[next(ids) if word == "{}" else word for word in words])

        assert of(NOBODY, shop).err == f"There is no organization {NOBODY}.\n"
        assert of(organization, NOBODY).err == f"The organization is known, but it has no shop {NOBODY}.\n"
        assert of(other, shop).err == f"The organization is known, but it has no shop {shop}.\n"
        assert of(shop, organization).err.startswith("The ids are the wrong way round: the organization's comes first")
    assert "checkout" in there("explain", organization, shop, "cart-1").err


def test_recover_asks_for_a_time_it_can_read(there: Cartwake) -> None:
    for word in ("yesterday", "2026-11-24T10:00:00", "2026-13-01T10:00Z"):
        said = there("recover", word)
        assert said.status == 2
        assert f"{word!r} is no time with its offset; write it like 2026-11-24T10:00:00Z (UTC)." in said.err


def test_recover_refuses_a_time_that_is_still_to_come(there: Cartwake) -> None:
    said = there("recover", "2999-01-01T00:00Z")
    assert (said.status, said.out) == (1, "") and "2999-01-01 00:00:00 UTC is still to come" in said.err


def test_help_groups_the_commands_by_task(cartwake: Cartwake) -> None:
    text = cartwake("--help").out
    for title in ("Try it on this machine", "Run a deployment", "Look, change nothing", "Merchants", "Stop sending"):
        assert title in text


LOOKING = [["audit"], ["doubts"], ["explain", NOBODY, NOBODY, "cart-1"], ["pause"], ["serve"], ["worker"]]


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_where_there_is_no_database_none_is_made(cartwake: Cartwake, tmp_path: Path, words: list[str]) -> None:
    home = tmp_path / "home"
    said = cartwake(*words, data_dir=str(home))
    assert said.status == 1
    assert said.err.startswith(f"There is no database here yet: {home} holds none, and nothing was made.\n")
    for way in ("CARTWAKE_DATABASE_URL", "trial.env", "`cartwake up`", "`cartwake migrate`"):
        assert way in said.err
    assert not home.exists()


def test_a_trial_s_environment_replaces_a_secret_s_file(tmp_path: Path) -> None:
    write_environment(tmp_path / "trial.env", {"CARTWAKE_DATABASE_URL": "host=a password='b c' dbname=d"})
    typed = f"source {tmp_path / 'trial.env'}; env"
    environ = {"CARTWAKE_DATABASE_URL_FILE": "/run/secrets/url", "PATH": os.environ["PATH"]}
    seen = subprocess.run(["bash", "-c", typed], env=environ, capture_output=True, text=True, check=True).stdout
    assert "CARTWAKE_DATABASE_URL=host=a password='b c' dbname=d\n" in seen and "_FILE" not in seen


@pytest.mark.slow
def test_up_with_secrets_in_files_says_what_it_stops(tmp_path: Path, settled_url: str) -> None:
    (tmp_path / "url").write_text(settled_url + "\n")
    (tmp_path / "token").write_text("another-token\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    environ |= {
        "CARTWAKE_DATABASE_URL_FILE": str(tmp_path / "url"),
        "CARTWAKE_TWILIO_AUTH_TOKEN_FILE": str(tmp_path / "token"),
        "CARTWAKE_DATA_DIR": str(tmp_path / "home"),
        "CARTWAKE_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "cartwake", "up"]
    up = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert up.stdout is not None
    told = []
    for line in up.stdout:
        told.append(line)
        if "Ctrl-C stops everything" in line:
            break
    up.send_signal(signal.SIGINT)
    rest, _ = up.communicate(timeout=60)
    assert up.returncode == 0, "".join(told) + rest
    assert rest.splitlines()[-1] == "Stopped: sandbox, web, worker, scheduler.", "the database is not ours"


def up_and_no_further(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`cartwake up`, which is to refuse at once."""
    return subprocess.run(
        [sys.executable, "-m", "cartwake", "up"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_two_ups_at_once_do_not_take_each_other_s_ports(tmp_path: Path, settled_url: str) -> None:
    """The second says what is in use; with a port of its own it runs, and its sandbox takes a free one."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    environ["CARTWAKE_DATABASE_URL"] = settled_url
    web_ports = [free_port(), free_port()]
    ups = []
    for number, port in enumerate(web_ports):
        mine = {"CARTWAKE_PORT": str(port), "CARTWAKE_DATA_DIR": str(tmp_path / str(number))}
        command = [sys.executable, "-m", "cartwake", "up"]
        ups.append(
            subprocess.Popen(command, env=environ | mine, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    sandboxes = []
    for up in ups:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("  sandbox "):
                sandboxes.append(line)
            if "Ctrl-C stops everything" in line:
                break
        else:
            pytest.fail("it ended by itself")
    addresses = {line.split()[1] for line in sandboxes}
    assert len(addresses) == 2
    for line in sandboxes:
        assert (":8090/" in line) != ("(port 8090 is in use)" in line)
    taken = {"CARTWAKE_PORT": str(web_ports[0]), "CARTWAKE_DATA_DIR": str(tmp_path / "third")}
    third = up_and_no_further(environ | taken)
    assert third.returncode == 1
    assert third.stderr.startswith(f"Port {web_ports[0]} of 127.0.0.1 is in use: ") and "CARTWAKE_PORT" in third.stderr
    metrics = taken | {"CARTWAKE_PORT": str(free_port()), "CARTWAKE_METRICS_PORT": str(web_ports[0] - 1)}
    fourth = up_and_no_further(environ | metrics)
    assert fourth.returncode == 1 and "CARTWAKE_METRICS_PORT (it and the next two)" in fourth.stderr, fourth.stderr
    for up in ups:
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
        assert up.returncode == 0


@pytest.mark.slow
def test_migrate_makes_it_and_then_there_is_one(cartwake: Cartwake, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert cartwake("migrate", data_dir=str(home)).status == 0
    assert has_cluster(home)
    assert cartwake("audit", data_dir=str(home)).out.endswith(" 0 broken.\n")
    (home / "trial.env").write_text("")
    changed = cartwake("audit", data_dir=str(home), secret_keys="x" * 32)
    assert "CARTWAKE_SECRET_KEYS is not what this database was set up with" in changed.err
    assert f"source {home / 'trial.env'}" in changed.err


def test_a_database_that_is_away_or_not_ours_is_one_clear_line(
    cartwake: Cartwake, fresh_url: str, server_url: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"postgresql://u:hunter2@127.0.0.1:{closed.getsockname()[1]}/cartwake"
        for command in ("migrate", "audit"):
            said = cartwake(command, database_url=away)
            assert said.status == 1 and said.err.startswith("The database cannot be used: connection failed")
            assert "Traceback" not in said.err and "hunter2" not in said.err
    weak = f"weak_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'weak'").format(psycopg.sql.Identifier(weak)))
    try:
        url = psycopg.conninfo.make_conninfo(server_url, user=weak, password="weak", dbname="postgres")
        said = cartwake("migrate", database_url=url)
        assert said.status == 1, said
        assert said.err.startswith("The login of CARTWAKE_DATABASE_URL may not do this: permission denied")
    finally:
        with psycopg.connect(server_url, autocommit=True) as conn:
            conn.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(weak)))


def test_migrating_with_other_secret_keys_is_refused_and_changes_nothing(there: Cartwake, settled_url: str) -> None:
    refused = there("migrate", secret_keys="x" * 32)
    assert refused.status == 1
    assert refused.err.startswith("This database was set up with other secret keys")
    assert "Nothing was changed." in refused.err and "new ones go in front" in refused.err
    assert there("audit").status == 0, "the logins have their passwords still"
    assert there("migrate", secret_keys=f"{'x' * 32},{DEVELOPMENT_SECRET}").status == 0, "a new one in front is fine"
    assert there("audit").status == 0


def test_a_login_that_is_refused_is_not_told_to_migrate_first(there: Cartwake) -> None:
    said = there("audit", secret_keys="x" * 32)
    assert said.status == 1 and said.err.startswith("The database cannot be used: ")
    assert "Either CARTWAKE_SECRET_KEYS is not what this database was set up with" in said.err


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"password": "wrong"}, "Correct the user or the password in CARTWAKE_DATABASE_URL"),
        ({"password": ""}, "Migrating needs the owner's login"),
        ({"dbname": "nobody_s"}, "Make it (createdb --owner=LOGIN NAME)"),
    ],
)
def test_migrate_says_what_mends_the_address(
    there: Cartwake, settled_url: str, change: dict[str, str], advice: str
) -> None:
    said = there("migrate", database_url=psycopg.conninfo.make_conninfo(settled_url, **change))
    assert said.status == 1 and said.err.startswith("The database cannot be used: ")
    assert advice in said.err.splitlines()[-1]


def test_a_taken_port_is_named_with_its_setting(
    there: Cartwake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        in_use = f"Port {port} of 127.0.0.1 is in use: stop what listens there, or choose another with "
        said = there("serve", port=port)
        assert (said.status, said.err) == (1, in_use + "CARTWAKE_PORT.\n")
        said = there("sandbox", "--port", port)
        assert (said.status, said.err) == (1, in_use + "--port.\n")
        said = there("up", port=port)
        assert (said.status, said.err) == (1, in_use + "CARTWAKE_PORT.\n")
    said = there("serve", port=port, host="192.0.2.1")
    assert said.err == "192.0.2.1 is no address of this machine: choose another with CARTWAKE_HOST.\n"


def test_localhost_is_the_address_that_a_proxy_is_told() -> None:
    with open_port("localhost", 0, "CARTWAKE_PORT") as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
