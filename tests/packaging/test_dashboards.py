"""The dashboard and the alert rules ask for what `/metrics` has, in Prometheus' own syntax."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.service_fixtures import EmbeddingZip, Upload, Work

_DEPLOY = Path(__file__).parents[2] / "deploy"
_ALERTS = _DEPLOY / "prometheus" / "alerts.yml"
_DASHBOARD: dict[str, Any] = json.loads((_DEPLOY / "grafana" / "dashboard.json").read_text())

_OF_A_GPU = {"ecif_recent_device_memory_bytes"}
"""What has no sample where no GPU is."""


def _alerts() -> list[str]:
    (group,) = yaml.safe_load(_ALERTS.read_text())["groups"]
    return [rule["expr"] for rule in group["rules"]]


def _panels() -> list[str]:
    targets = [target for panel in _DASHBOARD["panels"] for target in panel["targets"]]
    return [target["expr"].replace("$__rate_interval", "5m") for target in targets]


def test_every_metric_that_is_asked_for_is_there(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work
) -> None:
    upload(embedding_zip(4))
    work()
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    exposed = {sample.name for family in families for sample in family.samples}
    labels = {
        f'{key}="{value}"' for family in families for each in family.samples for key, value in each.labels.items()
    }
    keys = {label.partition("=")[0] for label in labels} | {"le"}
    expressions = _alerts() + _panels()
    assert len(expressions) > 20
    for expression in expressions:
        metrics = set(re.findall(r"\becif_\w+", expression))
        assert metrics, expression
        assert metrics - _OF_A_GPU <= exposed, expression
        assert set(re.findall(r'\w+="[^"]*"', expression)) <= labels, expression
        for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(grouped.split(", ")) <= keys, expression


def test_panels_lie_beside_each_other() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in _DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))
    identities = [panel["id"] for panel in _DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)


def _promtool(*arguments: str | Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool on this machine: the syntax of the expressions was not checked")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_follow_their_syntax_and_fire_when_they_should() -> None:
    _promtool("check", "rules", _ALERTS)
    _promtool("test", "rules", _ALERTS.with_name("alerts_test.yml"))


def test_the_panels_follow_the_syntax(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{index}", "expr": expression} for index, expression in enumerate(_panels())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    _promtool("check", "rules", file)
