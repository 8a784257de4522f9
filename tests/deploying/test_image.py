"""The image and the compose file, for real: docs/install.md's containers on a machine of its own, by Debian's Docker.

No registry is reached here, so the two base images are stand-ins of the same names, made of Debian's own Python and
PostgreSQL (`standins/`). All else is as it stands in the page: `docker compose` builds deploy/Dockerfile and runs
deploy/compose.yaml, with the proxy's example in front.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploying import debian
from deploying.debian import HOST, Machine
from deploying.recipe import ROOT, last
from deploying.test_files import tool
from deploying.test_nginx import certificate
from pages import blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.installed,
    pytest.mark.skipif(debian.MISSING is not None, reason=debian.MISSING or ""),
]

SECRETS, CONTAINERS, TRIAL, *_ = (block.code for block in blocks(ROOT / "docs" / "install.md"))
FILL_IN = "# and fill it in\n"
LOOK = "docker compose exec web cartwake doctor\n"
# docs/operate.md has these in its prose.
UPGRADE = "docker compose up --detach --build --scale worker=2"
MIGRATE = "docker compose run --rm migrate"
WITHOUT_WORKERS = "docker compose up --detach --scale worker=0"
AS_OWNER = "docker compose exec -T --env PGUSER=cartwake_owner postgres"
GATEWAY = "172.17.0.1"  # where containers find the machine that they run on
CARRIER = f"http://{HOST}:8091"

# Docker's control groups, which systemd-nspawn mounts read-only; names that containers look up; Debian as an image.
START = f"""
for group in /sys/fs/cgroup/*/; do sudo mount -o remount,rw,bind $group $group 2> /dev/null || true; done
echo '{{"dns": ["{GATEWAY}"]}}' | sudo tee /etc/docker/daemon.json
sudo systemctl start docker
sudo dnsmasq --no-resolv --no-hosts --listen-address={GATEWAY} --bind-interfaces --address=/{HOST}/{GATEWAY}
sudo tar -C / --one-file-system --exclude='./home/*' --exclude='./tmp/*' --exclude='./var/lib/docker' \\
    --exclude='./var/lib/postgresql/*' --exclude='./usr/bin/*docker*' --exclude='./usr/bin/containerd*' \\
    --exclude='./usr/sbin/*docker*' --exclude='./usr/lib/x86_64-linux-gnu/libLLVM*' --create . |
  docker import - debian-standin
"""
STANDINS = """
mkdir -p ~/standins && cd ~/standins
cp -r /srv/tests/standins/* /srv/wheels /etc/pip.conf .
cp /tmp/fullchain.pem our-own.crt
docker build --quiet --tag python:3.11-slim-bookworm --file python.Dockerfile .
docker build --quiet --tag postgres:18-bookworm --file postgres.Dockerfile .
cd ~/cartwake
"""
PROXY = """
sudo install -d /etc/ssl/cartwake
sudo cp /tmp/fullchain.pem /tmp/privkey.pem /etc/ssl/cartwake/
sudo cp ~/cartwake/deploy/nginx.conf /etc/nginx/conf.d/cartwake.conf
sudo systemctl start nginx
"""
SETTINGS = f"echo CARTWAKE_TWILIO_API_BASE={CARRIER} >> .env\n"
# A carrier that is not part of the deployment.
ELSEWHERE = f"""
docker run --detach --name carrier --network host --env-file .env \\
  --volume $PWD/secrets/secret_keys:/run/secrets/secret_keys --env CARTWAKE_SECRET_KEYS_FILE=/run/secrets/secret_keys \\
  --volume $PWD/secrets/twilio_auth_token:/run/secrets/token --env CARTWAKE_TWILIO_AUTH_TOKEN_FILE=/run/secrets/token \\
  cartwake:0.1.0 sandbox --host {GATEWAY} --port 8091
until curl -sS -o /dev/null http://{GATEWAY}:8091/; do sleep 0.2; done
"""
CONFINED = """
docker compose exec -T web sh -c '
  id -u; grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/1/status; ls /run/secrets
  for place in / /etc /opt/cartwake /run/secrets; do touch $place/probe 2> /dev/null && echo wrote $place; done; true'
"""
IN_ANOTHER_TERMINAL = (
    "sudo systemd-run --quiet --unit=trial --uid=$USER --working-directory=$PWD --setenv=HOME=$HOME bash -e -c"
)
KILL = """
killed=$(docker inspect --format '{{.State.Pid}}' cartwake-worker-1)
sudo kill -9 $killed
until [ "$(docker inspect --format '{{.RestartCount}} {{.State.Status}}' cartwake-worker-1)" = "1 running" ]
do sleep 0.2; done
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    # Docker's layers lie on a disk: they cannot be laid over the layer in memory that the machine itself is.
    with tempfile.TemporaryDirectory(prefix="cartwake-docker-") as layers:
        options = ["--capability=all", "--system-call-filter=add_key keyctl request_key"]
        options += [f"--bind={layers}:/var/lib/docker"]
        options += [f"--bind-ro={tool('docker-compose')}:/usr/libexec/docker/cli-plugins/docker-compose"]
        with debian.booted(tmp_path_factory.mktemp("machine"), *options) as made:
            folder = tmp_path_factory.mktemp("certificate")
            certificate(folder)
            for name in ("fullchain.pem", "privkey.pem"):
                made.copy(folder / name, f"/tmp/{name}")
            made.does(f"sudo usermod --append --groups docker {debian.USER}")
            made.does(START)
            made.does(STANDINS)
            yield made


@dataclass(frozen=True)
class Deployed:
    """A machine on which the page's containers run, and what starting them said."""

    machine: Machine
    said: str

    def does(self, script: str) -> str:
        """In the folder that the page works in."""
        return self.machine.does(f"cd deploy\n{script}")

    def running(self) -> list[str]:
        return self.does("docker compose ps --status running --format '{{.Service}}'").split()


@pytest.fixture(scope="module")
def deployed(machine: Machine) -> Iterator[Deployed]:
    before, after = CONTAINERS.split(FILL_IN)
    assert after.endswith(LOOK)
    page = [SECRETS, before, SETTINGS, after.removesuffix(LOOK), ELSEWHERE, PROXY, LOOK]
    yield Deployed(machine, machine.does("\n".join(page), timeout_s=400))
    machine.does("cd deploy; docker compose --profile sandbox down --volumes; docker rm --force carrier")


def test_the_doctor_finds_nothing_wrong_with_the_containers_that_the_page_starts(deployed: Deployed) -> None:
    assert "its certificate is good" in deployed.said
    assert "a webhook that the carrier signed is accepted" in deployed.said
    assert "FAIL" not in deployed.said


def test_each_process_runs_and_what_it_may_not_do_is_refused(deployed: Deployed) -> None:
    assert sorted(deployed.running()) == ["postgres", "scheduler", "web", "worker", "worker"]
    deployed.machine.until("docker inspect --format '{{.State.Health.Status}}' cartwake-web-1 | grep -x healthy")
    uid, *status = deployed.does(CONFINED).split()
    assert uid == last("USER").partition(":")[0]
    confined = ["CapBnd:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert sorted(status[:8]) == sorted(confined)
    assert status[8:] == ["database_url", "metrics_token", "secret_keys", "twilio_auth_token"], (
        "and nothing was written"
    )


def test_a_worker_that_was_killed_is_started_again(deployed: Deployed) -> None:
    deployed.does(KILL)
    assert deployed.running().count("worker") == 2


def test_the_upgrade_and_the_backup_are_done_as_the_page_says(deployed: Deployed) -> None:
    said = commands("operate.md")
    for command in (UPGRADE, MIGRATE, WITHOUT_WORKERS):
        assert command in said
    deployed.does(UPGRADE)
    assert deployed.running().count("worker") == 2
    assert "at revision" in deployed.does(MIGRATE)
    dump, into = (piece.strip("… ") for piece in (AS_OWNER, "… pg_dump --format=custom cartwake > cartwake.dump"))
    assert dump in said and f"… {into}" in said
    deployed.does(f"{dump} {into}")
    assert "TABLE DATA" in deployed.does(f"{dump} pg_restore --list < cartwake.dump")
    deployed.does(WITHOUT_WORKERS)
    assert sorted(deployed.running()) == ["postgres", "scheduler", "web"]


def test_the_trial_is_well_and_its_phone_can_be_read(machine: Machine, deployed: Deployed) -> None:
    deployed.does("docker compose down --volumes")
    deployed.does(f"{IN_ANOTHER_TERMINAL} '{TRIAL}'")
    machine.until(
        "curl -sS --fail http://127.0.0.1:8080/readyz && curl -sS --fail http://127.0.0.1:8090/sandbox/messages"
    )
    looked = deployed.does("docker compose --env-file sandbox.env exec web cartwake doctor")
    assert "it is the sandbox, which texts nobody" in looked and "FAIL" not in looked
    deployed.does("sudo systemctl stop trial")
    assert deployed.running() == []


def commands(page: str) -> list[str]:
    """What stands between backticks in a page's prose."""
    text = " ".join((ROOT / "docs" / page).read_text().split())
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", text)
