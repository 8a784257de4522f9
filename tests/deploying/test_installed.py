"""docs/install.md on a machine of its own: Debian's systemd starts our units beside Debian's PostgreSQL and nginx.

The page's blocks are typed as they stand, in one shell, by an operator with sudo. The carrier is the sandbox; the
certificate is signed by an authority that this machine alone trusts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploying import debian
from deploying.debian import HOST, Machine
from deploying.recipe import ROOT
from deploying.test_files import EXPOSURE_MAX
from deploying.test_nginx import certificate
from pages import blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.installed,
    pytest.mark.skipif(debian.MISSING is not None, reason=debian.MISSING or ""),
]

UNITS = ("cartwake-web", "cartwake-worker@1", "cartwake-worker@2", "cartwake-scheduler")
PROMPTS = ("Enter password for new role: ", "Enter it again: ")
FILL_IN = "# and fill it in\n"
DYNAMIC_UID_MIN = 61184  # systemd.exec(5): users of such numbers exist while their unit runs
SPEED = 300  # world seconds per second, where a test waits for a cart
SECRETS, _, _, DATABASE, INSTALL, WELL, KEY = (block.code for block in blocks(ROOT / "docs" / "install.md"))

# What the page leaves to the operator: the settings (the example's host and account are right here), a certificate,
# the proxy's example, and a carrier.
SETTINGS = "echo CARTWAKE_TWILIO_API_BASE=http://127.0.0.1:8090 | sudo tee -a /etc/cartwake/cartwake.env\n"
PROXY = """
sudo install -d /etc/ssl/cartwake
sudo cp /tmp/fullchain.pem /tmp/privkey.pem /etc/ssl/cartwake/
sudo cp /tmp/fullchain.pem /usr/local/share/ca-certificates/our-own.crt
sudo update-ca-certificates
sudo cp deploy/nginx.conf /etc/nginx/conf.d/cartwake.conf
sudo systemctl start nginx
"""
CARRIER = "sudo systemd-run --quiet --collect --unit=carrier /usr/local/sbin/cartwake sandbox\n"
READY = "until curl -sS --fail http://127.0.0.1:8080/readyz; do sleep 0.2; done\n"

# A clock that a test can wait by, for the units and for whoever types `cartwake`.
CLOCK = """
sudo systemctl stop carrier
sudo install -d /var/lib/clock
sudo /opt/cartwake/bin/python - <<'END'
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from cartwake.kit.clock import VirtualClock
day = datetime.now(UTC).date() + timedelta(days=8)
tuesday = day + timedelta(days=(1 - day.weekday()) % 7)
VirtualClock.create(Path("/var/lib/clock/clock"), datetime.combine(tuesday, time(8), UTC), SPEED)
END
sudo chmod 666 /var/lib/clock/clock
echo CARTWAKE_CLOCK=virtual:/var/lib/clock/clock | sudo tee -a /etc/cartwake/cartwake.env
printf '[Service]\\nReadWritePaths=/var/lib/clock\\n' | sudo tee /etc/systemd/system/cartwake-.service.d/clock.conf
sudo systemctl daemon-reload
""".replace("SPEED", str(SPEED))

# A unit of the same kind, which the common part applies to, that tries what it must not.
PROBE = Path(__file__).parent / "probe.py"
PROBED = """
printf '[Service]\\nType=oneshot\\nExecStart=/opt/cartwake/bin/python /srv/tests/probe.py\\n' |
  sudo tee /etc/systemd/system/cartwake-probe.service > /dev/null
sudo systemctl daemon-reload
sudo systemctl start cartwake-probe
sudo journalctl --sync
sudo journalctl --output=cat --identifier=python --lines=1
"""

QUICKSTART = [block.code for block in blocks(ROOT / "docs" / "quickstart.md")]
PHONE = "37061234567"
MERCHANT = """
word() { awk -v name="$1" '$1 == name { print $2 }' "$2"; }
sudo cartwake org create 'Lino Namai' > ~/org
ORG=$(word organization_id ~/org)
sudo cartwake shop create $ORG 'Lino Namai' --country LT --locale lt > ~/shop
SHOP=$(word shop_id ~/shop)
sudo cartwake number add $ORG $SHOP +37061000009
sudo cartwake credits adjust $ORG 50 --note welcome
printf 'ORG=%s\\nSHOP=%s\\nKEY=%s\\n' $ORG $SHOP $(word shop_secret ~/shop) > ~/merchant
"""
(CART,) = [code for code in QUICKSTART if '"phone": ' in code]
LEAVE_CART = ". ~/merchant\n" + CART.replace("http://127.0.0.1:8080", f"https://{HOST}")
TEXTS = f"""
curl -sS --fail "http://127.0.0.1:8090/sandbox/messages?to=%2B{PHONE}" > ~/texts
grep -q '"body"' ~/texts
cat ~/texts
"""
EXPLAIN = ". ~/merchant; sudo cartwake explain $ORG $SHOP cart-7"


def as_root(code: str) -> str:
    """With systemd, says the page, `cartwake` is `sudo cartwake`."""
    return re.sub(r"^cartwake ", "sudo cartwake ", code, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with debian.booted(tmp_path_factory.mktemp("machine")) as made:
        yield made


@dataclass(frozen=True)
class Installed:
    """A machine on which the page was followed to its end, and what that said."""

    machine: Machine
    said: str

    def pid(self, unit: str) -> int:
        return int(self.machine.does(f"systemctl show --property=MainPID --value {unit}"))


@pytest.fixture(scope="module")
def installed(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("certificate")
    certificate(folder)
    for name in ("fullchain.pem", "privkey.pem"):
        machine.copy(folder / name, f"/tmp/{name}")
    before, after = INSTALL.split(FILL_IN)
    page = [SECRETS, DATABASE, before, SETTINGS, after, PROXY, CARRIER, READY, as_root(WELL), as_root(KEY)]
    asked = {prompt: lambda: machine.does("cat secrets/postgres_password").strip() for prompt in PROMPTS}
    return Installed(machine, machine.does("\n".join(page), asked, timeout_s=400))


def test_the_doctor_finds_nothing_wrong_with_what_the_page_installs(installed: Installed) -> None:
    assert "its certificate is good" in installed.said
    assert "a webhook that the carrier signed is accepted" in installed.said
    assert "FAIL" not in installed.said


def test_the_key_that_the_page_ends_with_opens_the_api_through_the_proxy(installed: Installed) -> None:
    key = installed.said.split()[-1]
    header = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    asked = f'https://{HOST}/v1/organizations -d \'{{"name": "Lino Namai", "plan": "PRO"}}\''
    assert "organization_id" in installed.machine.does(f"curl -sS --fail-with-body {header} {asked}")


def test_systemd_enforces_what_the_units_may_not_do(installed: Installed) -> None:
    for unit in (*UNITS, "cartwake-migrate"):
        installed.machine.does(f"systemd-analyze security --no-pager --threshold={EXPOSURE_MAX} {unit}")
    said = installed.machine.does(PROBED)
    assert json.loads(said.splitlines()[-1]) == [], "what the probe could do"


def test_the_secrets_are_roots_alone(installed: Installed) -> None:
    modes = installed.machine.does("sudo sh -c \"stat -c '%A %U' /etc/cartwake/secrets /etc/cartwake/secrets/*\"")
    first, *files = modes.splitlines()
    assert first == "drwx------ root"
    assert files == ["-rw------- root"] * 6
    numbers = ",".join(str(installed.pid(unit)) for unit in UNITS)
    users = set(installed.machine.does(f"ps --no-headers -o uid --pid {numbers}").split())
    assert len(users) == 1 and int(users.pop()) >= DYNAMIC_UID_MIN


@pytest.fixture(scope="module")
def upgraded(installed: Installed) -> Installed:
    """The same on a faster clock, brought to it as docs/operate.md upgrades: migrate, then one process at a time."""
    restarts = "".join(f"sudo systemctl restart {unit}\n{READY}" for unit in UNITS)
    installed.machine.does(f"{CLOCK}\n{CARRIER}\nsudo systemctl start cartwake-migrate\n{restarts}")
    return installed


def test_an_upgrade_restarts_one_unit_after_the_other_and_all_is_well(upgraded: Installed) -> None:
    (look,) = [block.code for block in blocks(ROOT / "docs" / "operate.md") if "cartwake version" in block.code]
    said = upgraded.machine.does(as_root(look))
    assert "0 broken" in said and "FAIL" not in said
    shown = upgraded.machine.does(f"systemctl show --property=Result,NRestarts {' '.join(UNITS)}").split()
    assert set(shown) == {"Result=success", "NRestarts=0"}, shown
    told = upgraded.machine.does("sudo journalctl --no-pager --unit='cartwake-*' --output=cat")
    assert "Failed with result" not in told and "Killing" not in told, "each ended in good order"


def test_a_cart_is_texted_once_through_the_units_though_each_worker_is_killed(upgraded: Installed) -> None:
    machine = upgraded.machine
    machine.does(MERCHANT)
    machine.does(LEAVE_CART)
    before = {unit: upgraded.pid(unit) for unit in UNITS}
    for unit in ("cartwake-worker@1", "cartwake-worker@2"):
        machine.does(f"sudo kill -9 {before[unit]}")
    texts = json.loads(machine.until(TEXTS, timeout_s=120))["messages"]
    assert len(texts) == 1 and f"https://{HOST}/r/" in texts[0]["body"]
    machine.until(f"{EXPLAIN} | grep -q 'The text is delivered'")
    for unit in ("cartwake-worker@1", "cartwake-worker@2"):
        machine.until(f"systemctl is-active {unit}")
        assert upgraded.pid(unit) not in (0, before[unit]), "systemd starts it again"
    assert "0 broken" in machine.does("sudo cartwake audit")


def test_logs_are_lines_of_json_in_the_journal_without_the_phone(upgraded: Installed) -> None:
    lines = upgraded.machine.does("sudo journalctl --no-pager --unit='cartwake-*' --output=cat")
    logged = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    assert {"process.started"} <= {line["event"] for line in logged}
    assert PHONE not in lines and "Traceback" not in lines
