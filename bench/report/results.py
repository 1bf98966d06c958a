"""What a run leaves: a directory with raw.json, from which everything else can be made again."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path

import msgspec

from bench.report.machine import ROOT, Facts, slug
from bench.rounds import Round
from bench.shapes import Scenario
from bench.stats import Histogram

__all__ = ["Part", "Results", "Subject", "Unreadable", "directory", "load", "part_of", "save"]

FORMAT = 2  # of raw.json; counts up when a member changes its meaning
RAW = "raw.json"
TIMES = ("seconds", "warmup")
KEPT = ("name", "about", "figures", "main", "shows_not", "cpu_per", "series", "at")


class Unreadable(Exception):
    """No results are there, or of another format; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured: bench/targets describes the kinds."""

    name: str
    kind: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One scenario with its rounds; `numbers` are the fields that only its kind has."""

    name: str
    about: str
    figures: tuple[str, ...]
    main: str
    shows_not: str
    cpu_per: str
    series: str
    at: float
    numbers: Mapping[str, int | float | str]
    rounds: tuple[Round, ...]


@dataclass(slots=True, kw_only=True)
class Results:
    """A whole run.

    Args:
        missing: sentences about targets that could not be measured.
        complete: False when the run was interrupted, or still goes on.
    """

    facts: Facts
    subjects: Sequence[Subject]
    missing: Sequence[str] = ()
    complete: bool = False
    parts: list[Part] = field(default_factory=list)
    format: int = FORMAT

    @property
    def valid(self) -> bool:
        """Whether anything at all was measured."""
        return any(not one.invalid for part in self.parts for one in part.rounds)


def part_of(scenario: Scenario, rounds: Sequence[Round]) -> Part:
    """A scenario and its rounds as a record that outlives changes of the scenario."""
    values = {each.name: getattr(scenario, each.name) for each in fields(scenario)}
    own = [name for name in values if name not in (*KEPT, *TIMES)]
    numbers = {name: values[name] for name in (*own, *TIMES)}
    slim = tuple(replace(one, raw=_without_histograms(one.raw)) for one in rounds)
    return Part(**{name: values[name] for name in KEPT}, numbers=numbers, rounds=slim)


def directory(parent: Path, facts: Facts) -> Path:
    """Make the directory of a run: date, machine and commit; the time too when that is taken.

    Raises:
        OSError: it cannot be made.
    """
    at = datetime.fromisoformat(facts.at)
    tail = f"{slug(facts)}-{facts.commit}"
    path = parent / f"{at:%Y-%m-%d}-{tail}"
    parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        path = parent / f"{at:%Y-%m-%d-%H%M%S}-{tail}"
        path.mkdir()
    return path


def save(path: Path, results: Results) -> None:
    """Write raw.json into a directory, whole or not at all. Raises OSError."""
    data = msgspec.json.encode(results, enc_hook=_dumped)
    # A line for each round; in a JSON string the quotes would be escaped.
    data = _without_places(data.replace(b'{"scenario":', b'\n{"scenario":')) + b"\n"
    new = path / f"{RAW}.new"
    new.write_bytes(data)
    new.replace(path / RAW)


def load(path: Path) -> Results:
    """Read the raw.json of a directory.

    Raises:
        Unreadable: there is none, or it is damaged, or of another format.
    """
    try:
        data = (path / RAW).read_bytes()
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise Unreadable(f"{path / RAW} has format {found}; this bench reads {FORMAT}")
        return msgspec.json.decode(data, type=Results, dec_hook=_loaded)
    except OSError as error:
        raise Unreadable(f"{path} holds no results: {error.strerror}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Unreadable(f"{path / RAW} is damaged: {error}") from None


class _Format(msgspec.Struct):
    format: int = 0


def _dumped(value: object) -> object:
    if isinstance(value, Histogram):
        return value.dump()
    raise NotImplementedError(f"no form in raw.json for {type(value).__name__}")


def _loaded(kind: type, value: object) -> object:
    if kind is Histogram and isinstance(value, dict):
        return Histogram.load(value)
    if kind is object:
        return value
    raise NotImplementedError(f"no {kind.__name__} in raw.json")


def _without_histograms(raw: Mapping[str, object]) -> dict[str, object]:
    """What workers said without their histograms, which a round has already."""
    return {
        name: _without_histograms(value) if isinstance(value, dict) else value
        for name, value in raw.items()
        if not (isinstance(value, dict) and "counters" in value)
    }


def _without_places(data: bytes) -> bytes:
    """The data without the paths of this machine, which errors of children may mention."""
    places = {
        str(ROOT): b".",
        sys.prefix: b"venv",
        tempfile.gettempdir(): b"tmp",
        os.path.expanduser("~"): b"home",
    }
    for place in sorted(places, key=len, reverse=True):
        if len(place) > 1:
            data = data.replace(place.encode() + b"/", places[place] + b"/")
    return data
