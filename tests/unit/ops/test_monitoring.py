"""The page, the dashboard and the alert rules name metrics and labels that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from relay.ops.metrics import FAMILIES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/metrics.md").read_text()
FILES = ["docs/metrics.md", "examples/monitoring/grafana.json", "examples/monitoring/alerts.yml"]
NAMES = {
    name: family
    for family in FAMILIES.values()
    for name in (
        [family.name]
        if family.kind != "histogram"
        else [family.name, *(f"{family.name}_{end}" for end in ("bucket", "sum", "count"))]
    )
}
# Of the format, of the scraper, of one of our files.
OTHER_LABELS = {"le", "instance", "severity"}


def text_of(path: str) -> str:
    text = (ROOT / path).read_text()
    return json.dumps(json.loads(text), ensure_ascii=False) if path.endswith(".json") else text


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_the_page_has_every_metric(family: object) -> None:
    name, kind, labels, meaning, _bounds = family  # type: ignore[misc]
    shown = ", ".join(f"`{label}`" for label in labels)
    assert f"| `{name}` | {kind} | {shown} | {meaning} |" in PAGE


@pytest.mark.parametrize("path", FILES)
def test_metrics_exist(path: str) -> None:
    found = set(re.findall(r"\brelay_[a-z_]+", text_of(path)))
    assert found, "a file without a metric shows nothing"
    assert found <= set(NAMES)


@pytest.mark.parametrize("path", FILES)
def test_labels_exist(path: str) -> None:
    known = OTHER_LABELS | {label for family in FAMILIES.values() for label in family.labels}
    text = text_of(path).replace('\\"', '"')
    used = {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", text)
        for label in group.split(",")
    }
    used |= set(re.findall(r"[{,]([a-z_]+)=~?\"", text))
    used |= set(re.findall(r"\{\{ ?(?:\$labels\.)?([a-z_]+) ?\}\}", text))
    assert used <= known
