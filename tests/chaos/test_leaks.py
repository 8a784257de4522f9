"""The search of the logs finds a number in each way that it may be written, and takes nothing else for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.leaks import CALLING_CODES, Numbers, logs_in
from chaos.plan import COUNTRIES, Size, make_plan

CARTS = make_plan(Size(messages=500, kills=1, seed=1, every_s=1, speed=40)).carts
EXAMPLES = {country: next(cart for cart in CARTS if cart.country == country) for country in COUNTRIES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("logs", "postgres"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs" / "web.log").write_text("nothing\n")
    return tmp_path


@pytest.mark.parametrize("country", COUNTRIES)
@pytest.mark.parametrize(
    "written", ["to {e164}.", '{{"to":"{bare}"}}', "To=%2B{bare}&", "sms_{bare}_1", "({national})", "call 0{national}"]
)
@pytest.mark.parametrize("log", ["logs/web.log", "postgres/postgres.log", "postgres/postgres.log.1"])
def test_a_number_is_found(folder: Path, log: str, country: str, written: str) -> None:
    cart = EXAMPLES[country]
    bare = cart.phone.removeprefix("+")
    said = written.format(e164=cart.phone, bare=bare, national=bare.removeprefix(CALLING_CODES[country]))
    with (folder / log).open("a") as file:
        file.write(f"fine\n{said}\n")
    (found,) = Numbers(CARTS).found_in(logs_in(folder))
    assert found.startswith(Path(log).name)
    assert found.endswith(cart.external_id)
    assert bare not in found


def test_nothing_else_is_taken_for_one(folder: Path) -> None:
    cart = EXAMPLES["LT"]
    national = cart.phone.removeprefix("+370")
    others = ("2026-11-24 08:05:12.600001Z", f"id a{national}", f"{national}f-11", "+37061999999", f"9{national}9")
    (folder / "logs" / "worker 1.log").write_text("\n".join((*others, cart.external_id, cart.phone[:-1])))
    assert Numbers(CARTS).found_in(logs_in(folder)) == []
