"""The files in deploy/: each read by the tool that it is for, and compared with the program that they start.

`test_image.py` builds the image and runs the compose file, `test_installed.py` starts the units, each on a machine of
its own; `test_wheel.py` does what the Dockerfile says, line by line, in a folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from cartwake import __version__
from cartwake.cli import app as cli
from cartwake.kit.config import Settings
from cartwake.kit.config_listing import unknown_variables
from deploying.recipe import DEPLOY, ROOT, environment, health_command, instructions, last

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMMON = DEPLOY / "systemd" / "cartwake-.service.d" / "common.conf"
EXPOSURE_MAX = 15  # of 100, as `systemd-analyze security` counts; its own limit for "OK" is 40

systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def tool(name: str) -> str:
    """A program that the development dependencies bring."""
    return str(Path(sys.executable).with_name(name))


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)


def compose(env_file: str, *more: str) -> dict[str, Any]:
    """The compose file as Docker Compose itself reads it; no engine is asked."""
    words = [tool("docker-compose"), "--env-file", env_file, *more, "config", "--format", "json"]
    done = run(*words, cwd=DEPLOY)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Every service, the sandbox too."""
    found: dict[str, dict[str, Any]] = compose("sandbox.env", "--profile", "sandbox")["services"]
    return found


def commands() -> set[str]:
    """The first words that `cartwake` knows."""
    command = typer.main.get_command(cli)
    assert hasattr(command, "commands")
    return set(command.commands)


# --- image ------------------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    done = run(tool("hadolint"), "--failure-threshold", "style", DEPLOY / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_image_runs_as_an_ordinary_user_from_the_installed_environment() -> None:
    uid, _, gid = last("USER").partition(":")
    assert f"--uid {uid}" in last("RUN") and f"--gid {gid}" in last("RUN")
    assert int(uid) > 0 and int(gid) > 0
    assert environment()["PATH"].startswith("/opt/cartwake/bin:")
    assert json.loads(last("ENTRYPOINT")) == ["cartwake"]
    assert set(json.loads(last("CMD"))) <= commands()
    assert last("EXPOSE") == environment()["CARTWAKE_PORT"]
    assert any(f"127.0.0.1:{last('EXPOSE')}/healthz" in word for word in health_command())


def test_both_stages_have_the_same_base_and_a_python_that_the_project_allows() -> None:
    bases = {each.text.partition(" AS ")[0] for each in instructions() if each.word == "FROM"}
    assert len(bases) == 1, "what is compiled in one Python must run in the other"
    minor = re.search(r":3\.(\d+)-", bases.pop())
    assert minor and int(minor[1]) >= 11


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"]
    for each in instructions():
        if each.word != "COPY" or each.text.startswith("--from"):
            continue
        for source in each.text.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(Path(source).match(pattern) for pattern in allowed), f"{source} never reaches the build"


def test_the_locks_hold_what_the_project_needs_in_the_versions_that_are_tested() -> None:
    tested = versions(ROOT / "requirements.lock")
    for lock in (DEPLOY / "requirements.lock", DEPLOY / "build.lock"):
        pinned = versions(lock)
        assert pinned.items() <= tested.items(), f"{lock.name} is stale: make deploy/{lock.name}"
        assert lock.read_text().count("--hash=sha256:") >= len(pinned)
    project = (ROOT / "pyproject.toml").read_text()
    needed = re.findall(r'^    "([A-Za-z0-9_-]+)', project[: project.index("optional-dependencies")], re.MULTILINE)
    assert {name.lower() for name in needed} <= versions(DEPLOY / "requirements.lock").keys()
    assert "hatchling" in versions(DEPLOY / "build.lock")


def test_what_is_pinned_installs_on_the_oldest_python_that_the_project_allows() -> None:
    floor = re.search(r'requires-python = ">=(\S+)"', (ROOT / "pyproject.toml").read_text())
    assert floor is not None
    pinned = versions(ROOT / "requirements.lock")
    for found in distributions():
        name, wanted = found.metadata["Name"].lower(), found.metadata["Requires-Python"]
        if name in pinned and wanted:
            assert SpecifierSet(wanted).contains(f"{floor[1]}.0"), f"{name} wants {wanted}: pin an older one"


@pytest.mark.parametrize("lock", ["requirements.lock", "deploy/requirements.lock"])
def test_what_only_the_oldest_python_needs_is_pinned_too(lock: str) -> None:
    pinned = versions(ROOT / lock)
    oldest = {"python_version": "3.11", "python_full_version": "3.11.0", "extra": ""}
    for found in distributions():
        if canonicalize_name(found.metadata["Name"]) not in pinned:
            continue
        for wanted in map(Requirement, found.requires or []):
            if wanted.marker is None or wanted.marker.evaluate(oldest):
                assert canonicalize_name(wanted.name) in pinned, f"{found.metadata['Name']} wants {wanted}"


def versions(lock: Path) -> dict[str, str]:
    """What a lock file pins."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


# --- containers -------------------------------------------------------------------------------------


def test_compose_reads_both_environments(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"postgres", "migrate", "web", "worker", "scheduler", "sandbox"}
    assert "sandbox" not in compose("production.env")["services"], "only its profile starts it"


def test_compose_refuses_to_start_without_an_address_or_an_account(tmp_path: Path) -> None:
    empty = tmp_path / "empty.env"
    empty.touch()
    done = run(tool("docker-compose"), "--env-file", empty, "config", cwd=DEPLOY)
    assert done.returncode != 0
    assert "CARTWAKE_" in done.stderr and "is missing a value" in done.stderr


def test_every_service_of_ours_is_the_image_its_user_and_a_command_that_exists(
    services: dict[str, dict[str, Any]],
) -> None:
    ours = {name: each for name, each in services.items() if name != "postgres"}
    for name, each in ours.items():
        assert each["image"] == f"cartwake:{__version__}", name
        assert each["user"] == last("USER"), name
        assert each["command"][0] in commands(), name
        assert each["read_only"] and each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
    assert [name for name, each in ours.items() if not each.get("healthcheck", {}).get("disable")] == ["web"]
    assert {port["host_ip"] for each in services.values() for port in each.get("ports", [])} == {"127.0.0.1"}


def test_nothing_serves_before_the_migration_and_only_that_knows_the_owner(services: dict[str, dict[str, Any]]) -> None:
    for name in ("web", "worker", "scheduler"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    knows = [name for name, each in services.items() if "database_owner_url" in sources(each)]
    assert knows == ["migrate"]


def test_every_secret_that_a_service_is_told_to_read_is_given_to_it(services: dict[str, dict[str, Any]]) -> None:
    for name, each in services.items():
        for variable, path in each["environment"].items():
            if variable.endswith("_FILE"):
                assert path.removeprefix("/run/secrets/") in sources(each), f"{name}: {variable}"


def sources(service: dict[str, Any]) -> set[str]:
    return {secret["source"] for secret in service.get("secrets", [])}


# --- settings ---------------------------------------------------------------------------------------


def test_every_setting_that_a_file_names_exists() -> None:
    assert unknown_variables(["CARTWAKE_METRICS_TOKEN_FILE"]) == {}
    assert unknown_variables(["CARTWAKE_PUBLIC_URL_FILE"]), "only secrets may come from files"
    for file in sorted(DEPLOY.rglob("*")):
        if file.is_file() and file.suffix != ".lock":
            named = set(re.findall(r"\bCARTWAKE_[A-Z_]*[A-Z]", file.read_text()))
            assert unknown_variables(named) == {}, file.name


@pytest.mark.parametrize("name", ["production.env", "sandbox.env"])
def test_the_settings_in_the_examples_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (DEPLOY / name).read_text().splitlines():
        if line and not line.startswith("#"):
            variable, _, value = line.partition("=")
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("CARTWAKE_SECRET_KEYS", "k" * 32)
    monkeypatch.setenv("CARTWAKE_TWILIO_AUTH_TOKEN", "t" * 32)
    assert Settings().environment == name.removesuffix(".env").replace("sandbox", "development")


# --- systemd ----------------------------------------------------------------------------------------


@pytest.fixture
def unit_folder(tmp_path: Path) -> Path:
    """The units with a program to start in place of the installed one."""
    folder = tmp_path / "system"
    shutil.copytree(DEPLOY / "systemd", folder)
    program = tmp_path / "bin" / "cartwake"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/cartwake/bin/cartwake", str(program)))
    return folder


def instance(unit: Path) -> str:
    return unit.name.replace("@.", "@1.")


@systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_has_nothing_to_say_about_a_unit(unit: Path, unit_folder: Path) -> None:
    done = run("systemd-analyze", "verify", unit_folder / instance(unit))
    # An unknown key is only told, and ignored.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_hardened(unit: Path, tmp_path: Path) -> None:
    root = tmp_path / "etc" / "systemd" / "system"
    shutil.copytree(DEPLOY / "systemd", root)
    if instance(unit) != unit.name:
        shutil.copy(unit, root / instance(unit))
    options = ["--offline=true", f"--root={tmp_path}", f"--threshold={EXPOSURE_MAX}", "--no-pager"]
    done = run("systemd-analyze", "security", *options, f"/etc/systemd/system/{instance(unit)}")
    assert done.returncode == 0, done.stdout[-600:] + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_exists_where_the_image_has_it_too(unit: Path) -> None:
    started = re.search(r"^ExecStart=(\S+) (\S+)$", unit.read_text(), re.MULTILINE)
    assert started is not None
    assert started[1] == "/opt/cartwake/bin/cartwake"
    assert started[2] in commands()
    assert unit.name.startswith("cartwake-"), "or the common part does not apply to it"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_credential_that_a_unit_reads_is_loaded(unit: Path) -> None:
    text = COMMON.read_text() + unit.read_text()
    loaded = dict(re.findall(r"^LoadCredential=(\w+):(\S+)$", text, re.MULTILINE))
    assert set(re.findall(r"=%d/(\w+)", text)) == set(loaded)
    owner = loaded["database_url"].endswith("database_owner_url")
    assert owner == (unit.stem == "cartwake-migrate"), "only the migration may know the owner's password"


@pytest.mark.parametrize("words", [["version"], ["explain", "two words", "*"]])
def test_the_script_for_people_has_the_settings_and_secrets_of_the_units(words: list[str], tmp_path: Path) -> None:
    script = (DEPLOY / "cartwake.sh").read_text()
    for place in ("/etc/cartwake", "/opt/cartwake/bin"):
        assert place in script
        script = script.replace(place, f"{tmp_path}{place}")
        (tmp_path / place[1:]).mkdir(parents=True)
    shutil.copy(DEPLOY / "production.env", tmp_path / "etc" / "cartwake" / "cartwake.env")
    program = tmp_path / "opt" / "cartwake" / "bin" / "cartwake"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv | grep ^CARTWAKE_\n')
    program.chmod(0o755)
    done = run("sh", "-c", script, "cartwake", *words, env={"PATH": os.defpath})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[: len(words)] == words
    given = dict(line.split("=", 1) for line in done.stdout.splitlines()[len(words) :])
    loaded = [*re.findall(r"=%d/(\w+)", COMMON.read_text()), "database_url"]
    assert {Path(path).name for name, path in given.items() if name.endswith("_FILE")} == set(loaded)
    assert given["CARTWAKE_ENVIRONMENT"] == "production"
    assert unknown_variables(given) == {}


# --- metrics ----------------------------------------------------------------------------------------


def scraped(number: int) -> dict[str, Any]:
    """The jobs of one of the page's examples for Prometheus."""
    page = (ROOT / "docs" / "observe.md").read_text()
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[number])  # type: ignore[no-untyped-call]
    assert {(ROOT / "docs" / "observe" / file).exists() for file in example["rule_files"]} == {True}
    return {job["job_name"].removeprefix("cartwake-"): job for job in example["scrape_configs"]}


def test_prometheus_is_told_the_ports_that_the_units_serve_on() -> None:
    jobs = scraped(0)
    served = {}
    for unit in UNITS:
        for port in re.findall(r"CARTWAKE_METRICS_PORT=(\S+)", unit.read_text()):
            served[unit.stem.removeprefix("cartwake-").removesuffix("@")] = port
    assert jobs.keys() == served.keys() == {"web", "worker", "scheduler"}
    for name, job in jobs.items():
        (group,) = job["static_configs"]
        wanted = [served[name].replace("%i", str(1 + number)) for number in range(len(group["targets"]))]
        assert group["targets"] == [f"127.0.0.1:{port}" for port in wanted]
    assert "CARTWAKE_METRICS_HOST" not in "".join(unit.read_text() for unit in UNITS), "on the loopback address alone"


def test_prometheus_is_told_the_ports_that_the_containers_serve_on_and_nothing_publishes_them(
    services: dict[str, dict[str, Any]],
) -> None:
    jobs = scraped(1)
    serving = {name: each for name, each in services.items() if "CARTWAKE_METRICS_PORT" in each["environment"]}
    assert jobs.keys() == serving.keys() == {"web", "worker", "scheduler"}
    for name, each in serving.items():
        (found,) = jobs[name]["dns_sd_configs"]
        assert found == {"names": [name], "type": "A", "port": int(each["environment"]["CARTWAKE_METRICS_PORT"])}
        assert "monitoring" in each["networks"] and jobs[name]["authorization"]["credentials_file"]
        assert "CARTWAKE_METRICS_TOKEN_FILE" in each["environment"], "beyond the loopback address a token is asked for"
        assert str(found["port"]) not in {str(port["target"]) for port in each.get("ports", [])}
    assert compose("production.env")["networks"]["monitoring"]["internal"]
    alerts = (ROOT / "docs" / "observe" / "cartwake-alerts.yml").read_text()
    assert '{job=~"cartwake-.*"}' in alerts
