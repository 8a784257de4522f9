"""Every command in the documentation is run as it stands there, on a faster clock, or `ELSEWHERE`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pages import LANGUAGES, ROOT, blocks, scratch, told_speed

PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if any(block.not_run is None for block in blocks(page)))

# What a page must have shown by its end, beside that no command failed.
SHOWN = {
    "twilio.md": ["21211"],
    "install.md": ['"status":"ok"', "a webhook that the carrier signed is accepted"],
    "texts.md": ['"version":1,"changed_by"', '"secret":"whsec_'],
    "observe.md": ["cartwake_messages_waiting", "404"],
    "comply.md": ['"stale_after_s":172800', "The chain is whole"],
    "quickstart.md": [
        "302 https://shop.example/checkout?cart=7",
        "The text is delivered.",
        '"recovered":true',
        "0 broken",
    ],
    "integrate.md": ["201", '"granted":false', '"recovered":true', "consent-without-phone"],
    "sandbox.md": ['"throttle_rate": 0.2', '"throttle_rate": 0.0'],
    "operate.md": ["0 broken", "Sending is paused.", "Sending goes on.", "0 texts in doubt", "27 checks"],
}

# Blocks that are not run here, by page: another test runs each, where it has what the block needs.
ELSEWHERE = {
    "bullmq.md": [
        "test_bullmq_page.py runs it, on a Valkey of its own",
        "test_bullmq_page.py runs it, until it serves",
    ],
    "install.md": [
        "test_image.py runs it, on a machine of its own",
        "test_image.py runs it, on a machine of its own",
        "test_installed.py runs it, on a machine of its own",
        "test_installed.py runs it, on a machine of its own",
    ],
    "operate.md": ["test_backup.py runs it, on servers of its own"] * 3,
    "sandbox.md": ["test_sandbox_faults_file.py runs it, on a port of its own"],
    "scale.md": ["test_checkout.py runs it, a fiftieth of it"],
    "quickstart.md": ["test_checkout.py runs it, in a copy of the checkout"],
}


def test_no_command_escapes_by_its_label() -> None:
    shells = {"bash", "shell", "console", "zsh", "py", "sh-session"}
    for page in (ROOT / "docs").rglob("*.md"):
        labels = set(re.findall(r"^```(\w+)", page.read_text(), re.MULTILINE))
        assert labels & shells == set(), f"{page.name}: call a block {' or '.join(LANGUAGES)}, so that it is run"
        fenced = len(re.findall(r"^ *(?:>|[-*] )? *```(?:sh|python)$", page.read_text(), re.MULTILINE))
        assert fenced == len(blocks(page)), f"{page.name}: a block that the runner does not see"
        assert page.parent == ROOT / "docs" or labels & set(LANGUAGES) == set(), f"{page}: nobody runs this"


def test_what_is_run_elsewhere_is_listed_here() -> None:
    found = {
        page.name: [block.not_run for block in blocks(page) if block.not_run] for page in (ROOT / "docs").glob("*.md")
    }
    assert {page: reasons for page, reasons in found.items() if reasons} == ELSEWHERE


def test_what_is_run_elsewhere_is_run_by_a_test_that_reads_the_page() -> None:
    for page, reasons in ELSEWHERE.items():
        for reason in reasons:
            named = re.match(r"(test_\w+\.py) runs it, ", reason)
            assert named, f"{page}: {reason!r} names no test"
            (test,) = (ROOT / "tests").rglob(named[1])
            assert f'"{page}"' in test.read_text(), f"{test.name} does not read {page}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages use curl")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_s_commands_work_as_written(page: Path, tmp_path: Path) -> None:
    found = blocks(page)
    with scratch(tmp_path) as deployment:
        done = deployment.run([block for block in found if block.not_run is None], told_speed(found))
    assert done.returncode == 0, done.stdout
    for shown in SHOWN.get(page.name, []):
        assert shown in done.stdout, f"{shown!r} is not in:\n{done.stdout}"
