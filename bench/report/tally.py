"""What the rounds of a scenario say: medians, ratios, the best peer; pure.

Only valid rounds count. A ratio is taken within each round and only then
summed up over the rounds (bench/stats.paired).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.figures import FIGURES
from bench.foreign import MAX_FOREIGN
from bench.report.results import Part, Subject
from bench.rounds import Round
from bench.stats import Band, band, best, paired

__all__ = ["FAULTS", "Tally", "better_of", "disturbance"]

# What a target must not do to messages; a peer that does is never the best one.
FAULTS = ("lost", "reordered", "changed")


@dataclass(frozen=True, slots=True)
class Tally:
    """The answers about one scenario."""

    part: Part
    subjects: Sequence[Subject]

    @property
    def names(self) -> list[str]:
        """Every target that was tried, in the order of the run."""
        return list(dict.fromkeys(one.target for one in self._in_order()))

    @property
    def relays(self) -> list[str]:
        """The targets that are the relay."""
        return [name for name in self.names if self.kind(name) == "relay"]

    @property
    def peers(self) -> list[str]:
        """The targets that do the same work otherwise."""
        return [name for name in self.names if self.kind(name) == "peer"]

    @property
    def direct(self) -> str | None:
        """The target without anything in between."""
        return next((name for name in self.names if self.kind(name) == "direct"), None)

    @property
    def invalid(self) -> list[Round]:
        """The rounds that say nothing about their target."""
        return [one for one in self._in_order() if one.invalid]

    @property
    def repeated(self) -> int:
        """How many rounds were thrown away and measured again because of others."""
        return sum(one.repeated for one in self.part.rounds)

    @property
    def disturbed(self) -> list[Round]:
        """The valid rounds that count although others used their cores, the worst one first."""
        kept = [one for one in self.part.rounds if one.disturbed and not one.invalid]
        return sorted(kept, key=lambda one: -one.foreign)

    def kind(self, name: str) -> str:
        """direct, relay, peer or given."""
        return next((each.kind for each in self.subjects if each.name == name), "given")

    def rounds(self, name: str) -> list[Round]:
        """The valid rounds of a target."""
        return [one for one in self._in_order() if one.target == name and not one.invalid]

    def tried(self, name: str) -> int:
        """How many rounds a target had, valid or not."""
        return sum(one.target == name for one in self.part.rounds)

    def values(self, name: str, figure: str) -> dict[int, float]:
        """A figure by the number of the round."""
        return {
            one.number: one.figures[figure] for one in self.rounds(name) if figure in one.figures
        }

    def band(self, name: str, figure: str) -> Band | None:
        """Median and ends of a figure over the rounds."""
        return band(self.values(name, figure).values())

    def bands(self, figure: str) -> dict[str, Band]:
        """The same for every target that has the figure."""
        made = {name: self.band(name, figure) for name in self.names}
        return {name: one for name, one in made.items() if one is not None}

    def ratio(self, name: str, base: str | None, figure: str) -> Band | None:
        """What a target has of the base's figure; None when no round has both."""
        if base is None:
            return None
        return band(paired(self.values(name, figure), self.values(base, figure)))

    def is_base(self, name: str, figure: str) -> bool:
        """Whether ratios to this target's figure say anything: it has one, and not 0."""
        found = self.band(name, figure)
        return found is not None and found.middle != 0

    def best_peer(self, figure: str) -> str | None:
        """The peer with the best median among those that passed on everything unchanged."""
        better = better_of(figure)
        bands = self.bands(figure)
        sound = {name: bands[name] for name in self.peers if name in bands and not self._bad(name)}
        return best(sound, better) if better else None

    def notes(self, name: str) -> str:
        """What the rounds of a target want to have said, in their order."""
        notes = (one.note for one in self._in_order() if one.target == name and one.note)
        return "; ".join(dict.fromkeys(notes))

    def faults(self, name: str) -> float:
        """Messages lost, out of order or changed in all valid rounds."""
        return sum(sum(self.values(name, fault).values()) for fault in FAULTS)

    @property
    def compared(self) -> list[str]:
        """The figures for ratios: the main one, median and tail latency, CPU."""
        wanted = dict.fromkeys((self.part.main, "p50", "p99", "cpu_us"))
        return [name for name in wanted if name in self.part.figures and self.bands(name)]

    def _bad(self, name: str) -> bool:
        return self.faults(name) > 0

    def _in_order(self) -> Sequence[Round]:
        """First by target as in `subjects`: every other round went the other way round."""
        order: Mapping[str, int] = {each.name: i for i, each in enumerate(self.subjects)}
        last = len(order)
        return sorted(self.part.rounds, key=lambda one: (order.get(one.target, last), one.number))


def disturbance(tallies: Sequence[Tally]) -> str:
    """What others did to these rounds, in a sentence; "" when that was nothing."""
    repeated = sum(tally.repeated for tally in tallies)
    disturbed = [one for tally in tallies for one in tally.disturbed]
    said = []
    if repeated:
        said.append(f"others used the cores, so rounds were measured again: {repeated}")
    if disturbed:
        most = max(one.foreign for one in disturbed)
        said.append(
            f"rounds that count although others used more than {MAX_FOREIGN:.0%} of a core, at most"
            f" {most:.0%}: {len(disturbed)}"
        )
    return "; ".join(said)


def better_of(figure: str) -> Literal["lower", "higher"] | None:
    """Which way is better; None for an unknown figure too."""
    return FIGURES[figure].better if figure in FIGURES else None
