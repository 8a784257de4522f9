"""Carriers: the troubles that the suite is played in, and that no test plays in good health alone."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import conformance
from cartwake.carriers.protocol import Accepted
from cartwake.carriers.sandbox import Faults
from cartwake.carriers.sandbox.__main__ import faults_in
from conformance.bench import Bench, a_text
from conformance.faults import ALWAYS, CALM, FAULTS, TROUBLES, Trouble, rates
from conformance.trial import switch_faults


def test_no_fault_is_forgotten() -> None:
    assert set(ALWAYS) == set(FAULTS) == rates()
    assert all(any(name in setting for setting in trouble.faults) for name, trouble in ALWAYS.items())


def test_who_meets_the_carrier_meets_it_in_every_trouble() -> None:
    """A test of the suite takes `trial`; only one that sets its own trouble may take the bench as it is."""
    tests = dict(_tests())
    assert len(tests) > 30
    at_ease = [
        name
        for name, test in tests.items()
        if "bench" in inspect.signature(test).parameters and not _sets_trouble(inspect.getsource(test))
    ]
    assert at_ease == []


def _tests() -> Iterator[tuple[str, Callable[..., object]]]:
    for module in pkgutil.iter_modules(conformance.__path__):
        if module.name.startswith("test_carriers_"):
            members = inspect.getmembers(importlib.import_module(f"conformance.{module.name}"), inspect.isfunction)
            yield from ((name, test) for name, test in members if name.startswith("test_"))


def _sets_trouble(source: str) -> bool:
    return "bench.go_wrong(" in source or "switch_faults(bench" in source


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_a_file_and_the_control_endpoint_switch_the_same_faults(
    bench: Bench, trouble: Trouble, tmp_path: Path
) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps(trouble.faults), "utf-8")
    await switch_faults(bench, trouble.faults)
    assert bench.peer.state.faults == faults_in(str(file)) == Faults(**trouble.faults)


async def test_in_good_health_nothing_is_late_lost_or_repeated(bench: Bench) -> None:
    bench.go_wrong(**CALM.faults)
    assert isinstance(await bench.carrier.send(a_text()), Accepted)
    await bench.peer.settled()
    assert len(bench.receiver.received) == 2
