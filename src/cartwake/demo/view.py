"""What a person sees while the story runs: a live picture in a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cartwake.demo.happenings import Happening
from cartwake.demo.traffic import Traffic
from cartwake.demo.watch import Look
from cartwake.kit.clock import VirtualClock

# Every state is shown all the time, so that nothing jumps; the rare ones only when a text is in them.
STATES = {
    "scheduled": "white",
    "held": "cyan",
    "sending": "white",
    "accepted": "blue",
    "sent": "blue",
    "delivered": "green",
    "undelivered": "red",
    "rejected": "red",
    "dropped": "yellow",
}
RARE_STATES = ("failed", "unknown", "not_accepted", "unresolved", "delivery_unknown")

FRAMES_PER_S = 8
LINES_MAX = 200
ROOM_FOR_HAPPENINGS_MIN = 4


class View:
    """Shows the story. In a terminal it redraws one picture; elsewhere it prints each happening as it comes."""

    def __init__(self, console: Console, traffic: Traffic, clock: VirtualClock, addresses: Sequence[str] = ()) -> None:
        """`addresses`: where to look meanwhile, for the last line."""
        self._console = console
        self._addresses = Text("  ".join(addresses), style="dim", no_wrap=True, overflow="ellipsis")
        self._traffic = traffic
        self._clock = clock
        self._happenings: deque[Happening] = deque(maxlen=LINES_MAX)
        self._look: Look | None = None
        self._recovered: defaultdict[str, list[int]] = defaultdict(list)

    def live(self) -> AbstractContextManager[object]:
        """Draw for as long as the block lasts; the picture goes away with it."""
        if not self._is_live:
            return nullcontext()
        return Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=FRAMES_PER_S,
            transient=True,
            vertical_overflow="crop",
        )

    def show(self, look: Look) -> None:
        """The newest look at the engine."""
        self._look = look

    def tell(self, happening: Happening) -> None:
        """One more line."""
        self._happenings.append(happening)
        if not self._is_live:
            self._console.print(_line(happening), soft_wrap=True)

    def recovered(self, value_minor: int, currency: str) -> None:
        """A cart was recovered."""
        self._recovered[currency].append(value_minor)

    @property
    def _is_live(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def _picture(self) -> RenderableType:
        head, states = self._head(), self._states()
        room = self._console.height - states.row_count - 5  # head, three rules and the addresses
        recent = list(self._happenings)[-max(room, ROOM_FOR_HAPPENINGS_MIN) :]
        rule = Text("─" * self._console.width, style="dim")
        lines = [_line(happening) for happening in recent]
        for line in lines:
            line.truncate(self._console.width, overflow="ellipsis")
        blanks = [Text("")] * (max(room, ROOM_FOR_HAPPENINGS_MIN) - len(lines))
        return Group(head, rule, states, rule, *lines, *blanks, self._addresses)

    def _head(self) -> Table:
        local = self._clock.now().astimezone(self._traffic.zone_of(self._traffic.home))
        speed = self._clock.speed
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        left = Text.assemble(
            ("Cartwake", "bold"), "  ", (f"{local:%a %d %b %H:%M}", "bold cyan"), f" {self._traffic.home}"
        )
        pace = f"{speed:,.0f} times real time" if speed < 2000 else f"nothing is due: {speed:,.0f} times real time"
        head.add_row(left, Text(pace, style="dim"))
        return head

    def _states(self) -> Table:
        carts = self._look.carts.values() if self._look else ()
        count = Counter(cart.text for cart in carts if cart.text)
        names = [*STATES, *(state for state in RARE_STATES if count[state])]
        facts = self._facts()
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True, width=12)
        table.add_column(justify="right", no_wrap=True, width=3)
        table.add_column(no_wrap=True, ratio=1)
        table.add_column(no_wrap=True, width=17)
        table.add_column(no_wrap=True, width=19, justify="right")
        bar_width = max(self._console.width - 12 - 3 - 17 - 19 - 8, 5)
        most = max([*count.values(), bar_width])
        for position, name in enumerate(names):
            bar = "█" * round(count[name] * bar_width / most)
            fact = facts[position] if position < len(facts) else ("", "")
            style = STATES.get(name, "red") if count[name] else "dim"
            table.add_row(
                Text(name, style=style), Text(str(count[name]), style=style), Text(bar, style=style), fact[0], fact[1]
            )
        return table

    def _facts(self) -> Sequence[tuple[RenderableType, RenderableType]]:
        if self._look is None:
            return ()
        carts = self._look.carts.values()
        states = Counter(cart.cart for cart in carts)
        often = sorted(self._recovered.items(), key=lambda item: -len(item[1]))
        value = [f"{sum(minor) / 100:,.2f} {currency}" for currency, minor in often]
        facts = [
            ("carts so far", str(len(carts))),
            ("being filled", str(states["open"])),
            ("paying", str(states["payment_pending"])),
            ("left behind", str(states["abandoned"] + states["expired"])),
            ("ordered", str(states["completed"])),
            ("thanks to a text", str(sum(cart.attribution is not None for cart in carts))),
            ("worth", value[0] if value else "-"),
            ("", f"+ {len(value) - 1} currencies" if len(value) > 2 else value[1] if len(value) > 1 else ""),
            ("credits left", f"{self._look.available_credits}"),
        ]
        return [(Text(name, style="dim"), Text(figure, style="bold")) for name, figure in facts]


def _line(happening: Happening) -> Text:
    """One happening on one line."""
    return Text.assemble(
        (f"{happening.clock} ", "dim"),
        (f"{happening.city[:10]:<10} ", "dim"),
        f"{happening.name[:19]:<19} ",
        (happening.words, happening.style),
    )
