"""The offline verifier: whatever is done to an exported file, it says where, in one line and without a stack trace."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cartwake.consent.chain import canonical
from cartwake.consent.verify import BadExportError, verify
from chains import as_owner, exported, lines_of, say, seal, verified
from typed import Cartwake
from world import AINO, JONAS, RUTA, World

PAGE = Path(__file__).parents[2] / "docs" / "comply.md"


async def sealed_exports(world: World) -> tuple[bytes, bytes]:
    """A shop's chain of six, one of them erased; and another shop's, with the same shoppers and words."""
    made = []
    for name in ("Lino Namai", "Knygos"):
        shop = await world.shop(name)
        await say(world.runtime, shop, [RUTA, AINO, JONAS])
        await say(world.runtime, shop, [RUTA, AINO], yes=False)
        await say(world.runtime, shop, [RUTA])
        await seal(world.runtime)
        made.append(await exported(shop))
    return made[0], made[1]


def noticed(export: bytes) -> str:
    """What the verifier says is wrong."""
    with pytest.raises(BadExportError) as found:
        verify(io.BytesIO(export))
    return str(found.value)


@st.composite
def tampered(draw: Any, mine: list[bytes], other: list[bytes]) -> tuple[str, bytes]:
    """One thing done to an export, and what it was."""
    what = draw(st.sampled_from(["flip", "drop", "swap", "insert", "duplicate", "foreign", "cut", "old head", "edit"]))
    lines, at = list(mine), draw(st.integers(0, len(mine) - 1))
    where = draw(st.integers(0, len(mine) - 1).filter(lambda found: found != at))
    if what == "flip":
        whole = bytearray(b"".join(lines))
        place = draw(st.integers(0, len(whole) - 1))
        whole[place] ^= draw(st.integers(1, 255))
        return what, bytes(whole)
    if what == "drop":
        del lines[at]
    elif what == "swap":
        lines[at], lines[where] = lines[where], lines[at]
    elif what == "insert":
        lines.insert(at, draw(st.sampled_from([b"\n", b"{}\n", b"[]\n", b'{"type":"other"}\n', b"null\n"])))
    elif what == "duplicate":
        lines.insert(where, lines[at])
    elif what == "foreign":
        lines[at] = other[at]
    elif what == "cut":
        whole_ = b"".join(lines)
        return what, whole_[: draw(st.integers(0, len(whole_) - 1))]
    elif what == "old head":
        earlier = json.loads(lines[draw(st.integers(1, len(lines) - 3))])
        lines[-1] = canonical({"type": "head", "position": earlier["position"], "head": earlier["link"]}) + b"\n"
    else:
        return what, b"".join(edited(draw, lines, at))
    return what, b"".join(lines)


def edited(draw: Any, lines: list[bytes], at: int) -> list[bytes]:
    """Another value somewhere in a line, written as an export writes it. To call it erased is no lie that shows."""
    line = json.loads(lines[at])
    holder = line
    if isinstance(line.get("proof"), dict):
        holder = draw(st.sampled_from([line, line["proof"], line["proof"]["evidence"]]))
    name = draw(st.sampled_from(sorted(holder)))
    value = draw(
        st.sampled_from([None, "", 0, 1, True, [], {}, "a" * 64, "granted", holder[name], {"salt": "", "evidence": {}}])
    )
    holder[name if draw(st.booleans()) else "more"] = value
    if canonical(line) + b"\n" == lines[at] or (name == "proof" and line["proof"] is None):
        line["type"] = "else"
    return [*lines[:at], canonical(line) + b"\n", *lines[at + 1 :]]


async def test_whatever_is_done_to_an_export_is_noticed(world: World) -> None:
    mine, other = await sealed_exports(world)
    assert verified(mine).proven == 6
    seen: set[str] = set()
    check = _attack(mine, other, seen, 150)
    check()
    assert seen == {"flip", "drop", "swap", "insert", "duplicate", "foreign", "cut", "old head", "edit"}


@pytest.mark.thorough
async def test_whatever_is_done_to_an_export_is_noticed_however_often_one_tries(world: World) -> None:
    mine, other = await sealed_exports(world)
    _attack(mine, other, set(), 4_000)()


def _attack(mine: bytes, other: bytes, seen: set[str], examples: int) -> Any:
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(done=tampered(mine.splitlines(keepends=True), other.splitlines(keepends=True)))
    def attack(done: tuple[str, bytes]) -> None:
        what, export = done
        seen.add(what)
        assert noticed(export).startswith("Line ")

    return attack


async def test_a_whole_export_hides_no_event_among_those_of_others(world: World) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA])
    await say(world.runtime, shop, [RUTA], yes=False)
    await seal(world.runtime)
    whole, about_another = await exported(shop), await exported(shop, phone=AINO)
    lines, hidden = whole.splitlines(keepends=True), about_another.splitlines(keepends=True)
    forged = b"".join([*lines[:2], hidden[2], *lines[3:]])
    assert noticed(forged) == "Line 3: a whole export has every event; of this one the digest alone is here."
    assert page_verifies(forged) == "line 3: a whole export has every event"
    assert not verify(io.BytesIO(about_another)).whole and verify(io.BytesIO(whole)).whole


async def test_what_awaits_sealing_is_at_least_an_event(world: World) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA])
    export = await exported(shop)
    first, waiting, head = export.splitlines(keepends=True)
    assert (verify(io.BytesIO(export)).waiting, verify(io.BytesIO(export)).unproven) == (1, 0)
    line = json.loads(waiting) | {"proof": None}
    without = b"".join([first, canonical(line) + b"\n", head])
    assert verify(io.BytesIO(without)).unproven == 1 and page_verifies(without) is None
    for name, value in (("action", {}), ("at", 7), ("event_id", []), ("channel", None), ("commitment", "nothing")):
        nonsense = b"".join([first, canonical(line | {name: value}) + b"\n", head])
        assert noticed(nonsense).startswith(f"Line 2: {name} must be"), name
        assert page_verifies(nonsense), name


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda export: export.replace(b"\n", b"\r\n"), "its line ends are not an export's (CRLF)"),
        (lambda export: b"\xef\xbb\xbf" + export, "a byte order mark stands before it"),
        (lambda export: export.decode().encode("utf-16"), "a byte order mark stands before it"),
    ],
    ids=["line ends", "mark", "utf-16"],
)
async def test_what_a_program_did_to_the_file_on_its_way_is_told_from_a_forgery(
    world: World, damage: Any, said: str
) -> None:
    mine, _ = await sealed_exports(world)
    assert said in noticed(damage(mine))


async def test_each_line_that_is_wrong_is_named_with_what_is_wrong(world: World) -> None:
    mine, other = await sealed_exports(world)
    lines, foreign = mine.splitlines(keepends=True), other.splitlines(keepends=True)

    def changed(line: bytes, old: bytes, new: bytes) -> bytes:
        assert old in line
        return line.replace(old, new)

    for wrong, said in (
        ([*lines[:2], *lines[3:]], "Line 3: position 3 follows position 1: lines are missing or moved."),
        ([*lines[:3], foreign[3], *lines[4:]], "Line 4: its link does not follow from the one before it and its event"),
        ([foreign[0], *lines[1:]], "Line 2: its link does not follow"),
        (
            [lines[0], changed(lines[1], b'"granted"', b'"withdrawn"'), *lines[2:]],
            "Line 2: salt and evidence do not open",
        ),
        ([lines[0], changed(lines[1], b"checkbox", b"api"), *lines[2:]], "Line 2: salt and evidence do not open"),
        ([lines[0], changed(lines[1], b"Text me", b"Call me"), *lines[2:]], "Line 2: salt and evidence do not open"),
        (lines[:-1], "Line 8: the head is missing: the file was cut off."),
        ([*lines, lines[-1]], "Line 9: there is something after the head"),
        ([mine[:-40]], "Line 8: it is not JSON; the file seems to be cut off here."),
        ([*lines[:5], *lines[-1:]], "Line 6: the head is at position 6, but the chain ends at 4."),
        (
            [*lines[:-1], changed(lines[-1], b'"head":"', b'"note":"x","head":"')],
            "Line 8: it is not written as an export",
        ),
        ([b""], "Line 1: the file is empty."),
        ([b"\x00\xff\xfe"], "Line 1: it is not JSON"),
        ([b"PK\x03\x04\n"], "Line 1: it is not JSON."),
        ([b"[" * 100_000 + b"\n"], "Line 1: it is not JSON."),
        ([b'{"a":' + b"9" * 5000 + b"}\n"], "Line 1: it is not JSON."),
        ([b'{"type":"chain"}\n'], "Line 1: this is no export of a consent chain"),
        ([b'{"type":"chain","type":"chain"}\n'], "Line 1: it is not written as an export writes it"),
        ([b'"' + b"x" * 2_000_000 + b'"\n'], "Line 1: it is longer than"),
    ):
        assert noticed(b"".join(wrong)).startswith(said), noticed(b"".join(wrong))


async def test_an_older_export_verifies_and_a_head_that_was_noted_later_is_not_in_it(world: World) -> None:
    """Who cuts the newest events off, and writes an old head below, is found out by whoever noted a newer one."""
    mine, _ = await sealed_exports(world)
    lines = mine.splitlines(keepends=True)
    third = json.loads(lines[3])
    old = b"".join(lines[:4]) + canonical({"type": "head", "position": 3, "head": third["link"]}) + b"\n"
    newest = json.loads(lines[-1])["head"]
    assert verified(old, newest).noted == {}
    assert verified(mine, newest, third["link"]).noted == {newest: 6, third["link"]: 3}


async def test_the_command_says_it_in_one_line(world: World, cartwake: Cartwake, tmp_path: Path) -> None:
    mine, _ = await sealed_exports(world)
    file = tmp_path / "export.ndjson"
    file.write_bytes(mine)
    head = json.loads(mine.splitlines()[-1])["head"]
    said = cartwake("consent", "verify", str(file), "--head", head.upper(), database_url="no address at all")
    assert said.status == 0, said
    assert f"6 links, head {head}." in said.out and f"The head {head} is the chain's at position 6." in said.out
    unknown = cartwake("consent", "verify", str(file), "--head", "0" * 64)
    assert unknown.status == 1 and "is not in this chain" in unknown.err
    assert cartwake("consent", "verify", str(file), "--head", "0f").status == 2
    assert cartwake("consent", "verify", str(tmp_path / "none")).status == 2
    file.write_bytes(mine[:-1])
    cut = cartwake("consent", "verify", str(file))
    assert cut.status == 1 and cut.err.count("\n") == 1 and cut.err.startswith("Line 8: ")


async def test_the_command_writes_what_the_api_gives(world: World, cartwake: Cartwake, settled_url: str) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA, AINO])
    await seal(world.runtime)
    ids = [str(shop.merchant.organization_id), str(shop.shop_id)]
    settings = {"database_url": settled_url, "log_level": "error"}
    for more, params in (([], {}), (["--phone", RUTA], {"phone": RUTA})):
        said = await asyncio.to_thread(cartwake, "consent", "export", *ids, *more, **settings)
        assert said.out.encode() == await exported(shop, **params)
    swapped = await asyncio.to_thread(cartwake, "consent", "export", *ids[::-1], **settings)
    assert swapped.status == 1 and "wrong way round" in swapped.err


async def test_evidence_whose_key_is_gone_is_said_so(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA])
    await seal(world.runtime)
    with as_owner(fresh_url) as owner:
        owner.execute("UPDATE consent_evidence SET evidence_sealed = '\\x0102030405'")
    assert "could not be opened when this was exported" in noticed(await exported(shop))


# --- the one in the documentation --------------------------------------------------------------------------------


def stand_alone() -> str:
    """The verifier that `docs/comply.md` prints."""
    found = [block for block in PAGE.read_text().split("```") if block.startswith("python\n")]
    (code,) = [block.removeprefix("python\n") for block in found if "def verify" in block]
    return code


def page_verifies(export: bytes) -> str | None:
    """What the page's verifier says is wrong; None when nothing is."""
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(stand_alone(), namespace)
    try:
        namespace["verify"](io.BytesIO(export))
    except SystemExit as found:
        return str(found.code)
    return None


def by_the_page(tmp_path: Path, export: bytes) -> subprocess.CompletedProcess[str]:
    (tmp_path / "verify.py").write_text(stand_alone())
    (tmp_path / "export.ndjson").write_bytes(export)
    return subprocess.run(
        [sys.executable, "-I", "verify.py", "export.ndjson"], cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.mark.thorough
async def test_the_page_s_own_verifier_agrees(world: World, tmp_path: Path) -> None:
    mine, other = await sealed_exports(world)
    shop = await world.shop("Sodas")
    await say(world.runtime, shop, [RUTA, AINO])
    await seal(world.runtime)
    await say(world.runtime, shop, [JONAS])
    for export in (mine, other, await exported(shop), await exported(shop, phone=RUTA)):
        assert by_the_page(tmp_path, export).returncode == 0
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(stand_alone(), namespace)
    assert namespace["verify"](io.BytesIO(mine)) == lines_of(mine)[-1]["head"]
    lines, foreign = mine.splitlines(keepends=True), other.splitlines(keepends=True)
    places = range(0, len(mine), 5)
    flipped = [mine[:at] + bytes([mine[at] ^ bit]) + mine[at + 1 :] for at in places for bit in (1, 32)]
    for export in (
        *flipped,
        *(b"".join([*lines[:at], *lines[at + 1 :]]) for at in range(len(lines))),
        *(b"".join([*lines[:at], lines[at], *lines[at:]]) for at in range(len(lines))),
        *(b"".join([*lines[:at], foreign[at], *lines[at + 1 :]]) for at in range(len(lines))),
        *(mine[:cut] for cut in range(0, len(mine), 97)),
    ):
        with pytest.raises(SystemExit) as found:
            namespace["verify"](io.BytesIO(export))
        assert str(found.value.code).startswith("line ")
    assert by_the_page(tmp_path, mine[:-1]).returncode == 1
