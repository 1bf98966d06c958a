"""Writes what people read of a run: summary.md and the plots, both made from the results."""

from __future__ import annotations

from pathlib import Path

from bench.report.results import Results
from bench.report.summary import summary

__all__ = ["NO_PLOTS", "write"]

NO_PLOTS = (
    "no plots: matplotlib is not installed; python -m pip install matplotlib,"
    " then python -m bench report with the directory above"
)


def write(path: Path, results: Results) -> str | None:
    """Write summary.md and, where matplotlib is there, the plots.

    Returns:
        A sentence when there are no plots.

    Raises:
        OSError: something cannot be written.
    """
    drawn = _draw(path, results)
    (path / "summary.md").write_text(summary(results, drawn or ()))
    return NO_PLOTS if drawn is None else None


def _draw(path: Path, results: Results) -> list[str] | None:
    """The names of the plots; None without matplotlib."""
    try:
        from bench.report.plots import draw
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "matplotlib":
            raise
        return None
    return draw(results, path)
