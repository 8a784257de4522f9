"""The story while it runs: look, tell, play what is due, and let the clock run as fast as that allows."""

from __future__ import annotations

import asyncio
import time

from cartwake.cluster import Cluster, ClusterError
from cartwake.demo.happenings import changes
from cartwake.demo.pace import Steering, next_scan
from cartwake.demo.stories import Player
from cartwake.demo.traffic import Traffic
from cartwake.demo.view import View
from cartwake.demo.watch import Cart, Look, look
from cartwake.kit.runtime import Runtime

LOOK_EVERY_S = 0.05
# Something is due or under way, and nothing has changed for so long: a process hangs.
STUCK_AFTER_S = 60.0
# Until the first text is scheduled, shoppers only come and fill their carts.
HASTE_BEFORE_TEXTS = 2.0


class Performance:
    """One run of the story from its first act until nothing more will happen."""

    def __init__(
        self, runtime: Runtime, cluster: Cluster, traffic: Traffic, player: Player, steering: Steering, view: View
    ) -> None:
        self._runtime = runtime
        self._cluster = cluster
        self._traffic = traffic
        self._player = player
        self._steering = steering
        self._view = view
        self._shoppers = {shopper.token: shopper for shopper in traffic.shopper}
        self._carts: dict[str, Cart] = {}
        self._moved_s = time.monotonic()
        self.first_text_s: float | None = None  # by the machine's stopwatch

    async def run(self) -> None:
        """Play to the end. Raises `ClusterError` when a process dies or hangs."""
        try:
            with self._steering, self._view.live():
                while not await self._beat():
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await self._player.stop()

    async def _beat(self) -> bool:
        """Look once and act on it; whether the story is over."""
        self._cluster.check()
        self._player.check()
        played_before = self._player.acts_played
        seen = await look(self._runtime)
        self._take_note(seen)
        self._player.hear(seen.carts)
        self._player.start_due()
        # What was played during the look may have made something due that the look did not see.
        is_calm = self._player.acts_played == played_before and not self._player.is_playing
        self._steer(seen, is_calm=is_calm)
        return is_calm and seen.at_rest and self._player.next_at is None

    def _take_note(self, seen: Look) -> None:
        self._view.show(seen)
        for token, cart in seen.carts.items():
            before, shopper = self._carts.get(token), self._shoppers[token]
            if cart == before:
                continue
            self._moved_s = time.monotonic()
            for happening in changes(shopper, self._traffic, before, cart):
                self._view.tell(happening)
            if cart.attribution and not (before and before.attribution):
                self._view.recovered(shopper.value_minor, shopper.currency)
            if cart.accepted_at and self.first_text_s is None:
                self.first_text_s = time.monotonic()
        self._carts = seen.carts

    def _steer(self, seen: Look, *, is_calm: bool) -> None:
        now = self._runtime.clock.now()
        scan_at = next_scan(seen.scan_at) if seen.scan_at else None
        due_ats = [at for at in (self._player.next_at, seen.next_due_at, scan_at) if at is not None]
        if is_calm and not seen.under_way and all(at > now for at in due_ats):
            self._moved_s = time.monotonic()
            self._steering.nothing_until(min(due_ats, default=None))
            return
        has_texts = any(cart.text for cart in seen.carts.values())
        self._steering.something_happens(1.0 if has_texts else HASTE_BEFORE_TEXTS)
        if time.monotonic() - self._moved_s > STUCK_AFTER_S:
            raise ClusterError(f"Something is due, and nothing has moved for {STUCK_AFTER_S:.0f} s; see the logs.")
