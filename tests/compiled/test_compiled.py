"""The modules that these tests run with are compiled ones, in the pump's process too.

Run by `make test-compiled`, together with the tests of what is compiled.
"""

from __future__ import annotations

import importlib
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from relay.pump import channel
from relay.pump.channel import Ask, Quit
from relay.pump_processes import PumpProcesses
from tests.helpers.daemon import PATIENCE, pids_with

SUFFIX = ".so"
MODULES = [each.removesuffix(".py").replace("/", ".") for each in os.environ["COMPILED"].split()]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_compiled(name: str) -> None:
    assert str(importlib.import_module(name).__file__).endswith(SUFFIX)


def test_the_version_says_so() -> None:
    command = [sys.executable, "-m", "relay", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.endswith(", pump compiled\n")


def test_the_process_that_carries_calls_runs_them(tmp_path: Path) -> None:
    pumps = PumpProcesses(tmp_path)
    try:
        with trio.run(pumps.connect, 0) as control:
            channel.send(control, Ask())
            assert select.select([control], [], [], PATIENCE)[0], "the pump says nothing"
            (pid,) = pids_with(f"{tmp_path}/pump-")
            mapped = Path(f"/proc/{pid}/maps").read_text()
            channel.send(control, Quit())
    finally:
        trio.run(pumps.end)
    assert "/relay__mypyc." in mapped  # the code of all of them
    assert "/relay/pump/pump." in mapped
