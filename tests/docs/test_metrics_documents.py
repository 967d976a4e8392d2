"""The metrics page, the alert rules and the dashboard tell of the metrics that there are."""

from __future__ import annotations

import json
import re

import pytest

from receiver.metrics import METRICS, PREFIX, Metric
from tests.server import ROOT
from tests.web.test_metrics import promtool

DOCS = ROOT / "docs" / "reference"
#: What a kill costs a counter, by where it comes from.
COSTS = {"row": "nothing", "process": "15 s", "state": ""}


def row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return (
        f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels} | {metric.meaning} "
        f"| {COSTS[metric.source]} |"
    )


def test_the_table_is_that_of_the_code() -> None:
    lines = (DOCS / "metrics.md").read_text().splitlines()
    assert [line for line in lines if line.startswith(f"| `{PREFIX}")] == [*map(row, METRICS)]


def series() -> set[str]:
    found = set()
    for metric in METRICS:
        ends = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        found |= {f"{PREFIX}{metric.name}{end}" for end in ends}
    return found


@pytest.mark.parametrize("name", ["prometheus-rules.yaml", "grafana.json"])
def test_what_is_asked_for_is_told(name: str) -> None:
    asked = re.findall(rf"{PREFIX}[a-z_]+", (DOCS / name).read_text())
    assert len(asked) > 10
    assert set(asked) <= series()


def test_each_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    texts = (DOCS / "prometheus-rules.yaml").read_text() + (DOCS / "grafana.json").read_text()
    assert not [metric.name for metric in METRICS if PREFIX + metric.name not in texts]


def test_the_dashboard_is_one() -> None:
    board = json.loads((DOCS / "grafana.json").read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    for panel in panels:
        assert panel["title"]
        assert all(
            target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"]
        )
        assert panel["datasource"]["uid"] == "${datasource}"


def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", str(DOCS / "prometheus-rules.yaml"))
