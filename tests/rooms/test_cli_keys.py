"""`cartwake key`: the same as by API, for whoever has the database's address."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from cartwake.cli import main


class Shell:
    """Runs `cartwake` against the test's database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def run(self, *arguments: str, status: int = 0) -> str:
        self.monkeypatch.setattr(sys, "argv", ["cartwake", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self.capsys.readouterr()
        assert (ended.value.code or 0) == status, said
        return said.out + said.err


@pytest.fixture
def shell(fresh_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("CARTWAKE_DATABASE_URL", fresh_url)
    monkeypatch.setenv("CARTWAKE_LOG_LEVEL", "error")
    made = Shell(monkeypatch, capsys)
    made.run("resume")  # a copy of another database starts paused, and every command says so
    return made


def word(text: str, name: str) -> str:
    found = re.search(rf"^{name} (\S+)$", text, flags=re.MULTILINE)
    assert found, text
    return found[1]


def test_keys_are_made_listed_replaced_and_ended(shell: Shell) -> None:
    organization = word(shell.run("org", "create", "Lino Namai"), "organization_id")
    shop = word(shell.run("shop", "create", organization, "Lino Namai", "--country", "LT"), "shop_id")
    made = shell.run("key", "create", organization, "--shop-id", shop)
    assert word(made, "shop_secret").startswith("cw_shop_")
    assert word(shell.run("key", "create", organization), "organization").startswith("cw_org_")
    public = shell.run("key", "create", organization, "--shop-id", shop, "--publishable")
    assert word(public, "shop_publishable").startswith("cw_public_")
    old = word(made, "key_id")
    new = shell.run("key", "rotate", old, organization, "--overlap-h", "1")
    assert word(new, "shop_secret") != word(made, "shop_secret")
    listed = shell.run("key", "list", organization)
    assert len(listed.splitlines()) == 7
    (line,) = [line for line in listed.splitlines() if old in line]
    assert f"shop {shop}" in line and "expires " in line and "revoked" not in line
    assert "cw_" not in listed
    assert "A merchant's comes with its organization" in shell.run("key", "rotate", old, status=1)
    shell.run("key", "revoke", old)
    shell.run("key", "revoke", old, organization)
    another = word(shell.run("org", "create", "Pretlow"), "organization_id")
    assert "There is no such key. One of the operator's own takes --operator." in shell.run(
        "key", "revoke", old, another, status=1
    )
    assert "not both" in shell.run("key", "revoke", old, organization, "--operator", status=2)
    (line,) = [line for line in shell.run("key", "list", organization).splitlines() if old in line]
    assert "revoked " in line


def test_the_operators_own_keys(shell: Shell) -> None:
    assert shell.run("key", "operator").startswith("cw_operator_")
    (line,) = shell.run("key", "list").splitlines()
    own = line.split()[0]
    assert "last operator key" in shell.run("key", "revoke", own, "--operator", status=1)
    assert word(shell.run("key", "rotate", own), "operator").startswith("cw_operator_")
    shell.run("key", "revoke", own, "--operator")


def test_what_is_not_there_is_one_clear_line(shell: Shell) -> None:
    nobody = "00000000-0000-0000-0000-000000000007"
    for arguments in (("create", nobody), ("rotate", nobody), ("rotate", nobody, nobody), ("revoke", nobody)):
        said = shell.run("key", *arguments, status=1)
        assert len(said.splitlines()) == 1 and "There is no such" in said, said
    organization = word(shell.run("org", "create", "Lino Namai"), "organization_id")
    assert "--shop-id" in shell.run("key", "create", organization, "--publishable", status=2)


@pytest.mark.thorough
def test_the_settings_name_the_rates() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "cartwake", "config"], capture_output=True, text=True, check=True
    ).stdout
    assert "CARTWAKE_RATE_SHOP_SECRET  [default: 12000/3000]" in said
