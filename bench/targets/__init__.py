"""What is measured: the origin, the relay, what could stand in its place, what runs already."""

from bench.targets.base import Kind, Start, Target
from bench.targets.choice import NAMES, available
from bench.targets.direct import origin, running

__all__ = ["NAMES", "Kind", "Start", "Target", "available", "origin", "running"]
