"""A rolling upgrade: old and new processes work side by side on one schema, and nobody notices.

The next release is this one with one migration more, of the kind that a migration may be: it expands. What takes
something away must wait until no process that knew it can be running: see `test_migrations.py`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import psycopg
import pytest

import cartwake
from cartwake.kit.schema import expected_revision
from processes import Child, Machine, Shop

pytestmark = pytest.mark.slow

EXPAND = """
-- What expanding migrations do: a column, an index and a table that older processes know nothing of.
ALTER TABLE sms_messages ADD COLUMN campaign text;
CREATE INDEX sms_messages_by_campaign ON sms_messages (organization_id, campaign) WHERE campaign IS NOT NULL;
CREATE TABLE campaigns (
  organization_id uuid NOT NULL REFERENCES organizations, campaign text NOT NULL,
  PRIMARY KEY (organization_id, campaign)
);
CALL raise_tenant_wall('campaigns', false);
"""


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The source of a later version; its schema is one step further."""
    copy = tmp_path / "next"
    shutil.copytree(Path(cartwake.__file__).parent, copy / "cartwake", ignore=shutil.ignore_patterns("__pycache__"))
    versions = copy / "cartwake" / "migrations" / "versions"
    (versions / "9999_next").mkdir()
    (versions / "9999_next" / "10_expand.sql").write_text(EXPAND)
    (versions / "9999_next.py").write_text(
        "from cartwake.migrations.steps import run_sql_beside\n"
        f"revision = '9999'\ndown_revision = '{expected_revision()}'\n"
        "def upgrade() -> None:\n    run_sql_beside(__file__)\n"
    )
    return copy


class Trade:
    """Shoppers who leave carts, by whichever web process is there, for as long as it lasts."""

    def __init__(self, machine: Machine, shop: Shop, webs: list[Child]) -> None:
        self.machine, self.shop, self.webs = machine, shop, webs
        self.phones: list[str] = []
        self._going_on = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            web = self.webs[len(self.phones) % len(self.webs)]
            self.phones.append(await self.machine.leaves_cart(web, self.shop, len(self.phones)))
            await asyncio.sleep(0.05)

    async def brings(self, more: int) -> None:
        """Return once so many more carts were left. Raises what a storefront would have run into."""
        enough = len(self.phones) + more
        while len(self.phones) < enough:
            if self._going_on.done():
                self._going_on.result()
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        self._going_on.cancel()
        await asyncio.gather(self._going_on, return_exceptions=True)


async def test_old_and_new_processes_share_one_schema(machine: Machine, next_release: Path) -> None:
    old = [await machine.start(kind) for kind in ("serve", "worker", "scheduler")]
    shop = await machine.shop(old[0])
    trade = Trade(machine, shop, [old[0]])
    machine.clock.set_speed(60)
    await trade.brings(20)

    status, said = await machine.runs("worker", source=next_release)
    assert status == 1 and "Run: cartwake migrate" in said, "new code refuses a schema that is older than it"
    with psycopg.connect(machine.database_url) as slow:  # somebody reads a table that the migration changes
        slow.execute("LOCK TABLE sms_messages IN ACCESS SHARE MODE")
        migrating = await machine.start("migrate", source=next_release)
        await machine.until_waiting_for_a_lock()
        await machine.until_waiting_for_a_lock(waits=False)  # it has given up its turn
        assert migrating.process.returncode is None
    assert await migrating.ends() == 0 and "9999" in migrating.said()
    assert (await machine.http.get(f"{old[0].url}/readyz")).status_code == 200, "old processes stay in service"
    await trade.brings(20)

    new = [await machine.start(kind, source=next_release) for kind in ("serve", "worker", "scheduler")]
    trade.webs.append(new[0])
    await trade.brings(20)
    again = await machine.start("worker")  # an old one that was restarted in the middle of it
    trade.webs.remove(old[0])
    await trade.brings(5)
    assert [await child.told_to_stop() for child in [*old, again]] == [0, 0, 0, 0]
    await trade.brings(20)
    await trade.end()

    await machine.until_texted(len(trade.phones))
    assert Counter(await machine.texts()) == Counter(trade.phones)
    for source in (None, next_release):
        status, said = await machine.runs("audit", source=source)
        assert status == 0, said
    assert not [child.name for child in machine.children if "Traceback" in child.said()]
