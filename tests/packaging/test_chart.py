"""The Helm chart: its values by their schema, and what it renders, where there is a Helm."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from store import shards
from store.database import Database
from store.phases import Lane
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, Upload

_CHART = Path(__file__).parents[2] / "deploy" / "chart"
_CHECK = Path(sys.executable).parent / "check-jsonschema"
_VALUES: dict[str, Any] = yaml.safe_load((_CHART / "values.yaml").read_text())
_BUCKET = {"blobUrl": "s3://bucket/prefix"}

Render = Callable[..., list[dict[str, Any]]]


def _fits(tmp_path: Path, **changed: Any) -> bool:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(_VALUES | changed))
    done = subprocess.run(
        [_CHECK, "--schemafile", _CHART / "values.schema.json", values], capture_output=True, check=False
    )
    return done.returncode == 0


def test_the_values_follow_their_schema(tmp_path: Path) -> None:
    assert _fits(tmp_path)
    wrongs: tuple[dict[str, Any], ...] = (
        {"blobUrl": "file:///data/blobs"},  # of one machine
        {"settings": {"ECIF_MAX_UPLOAD_BYTES": 1073741824}},  # Helm would write 1.073741824e+09
        {"settings": {"DATABASE_URL": "postgresql://owner:secret@host/ecif"}},  # a secret in plain sight
        {"workers": {**_VALUES["workers"], "gpu": _VALUES["workers"]["compute"]}},  # no such lane
        {"wrokers": {}},
    )
    for wrong in wrongs:
        assert not _fits(tmp_path, **wrong), wrong


def test_there_are_workers_for_every_lane() -> None:
    assert set(_VALUES["workers"]) == set(map(str, Lane))


def _scaling_query(lane: Lane) -> str:
    template = (_CHART / "templates" / "workers.yaml").read_text()
    found = re.search(r"query: >-\n((?: {10}.*\n)+)", template)
    assert found is not None
    return " ".join(found[1].replace("{{ $lane }}", lane).split())


def test_workers_are_scaled_by_what_waits_and_what_runs(
    database: Database, upload: Upload, embedding_zip: EmbeddingZip
) -> None:
    def wanted(lane: Lane) -> int:
        with database.transaction() as session:
            count: int = session.execute(text(_scaling_query(lane))).scalar_one()
        return count

    assert wanted(Lane.INGEST) == 0
    upload(embedding_zip(4))
    upload(embedding_zip(5))
    assert (wanted(Lane.INGEST), wanted(Lane.COMPUTE)) == (2, 0)
    with database.transaction() as session:
        claim = shards.claim(session, worker="w", lease_seconds=60)
    assert claim is not None
    assert wanted(Lane.INGEST) == 2, "a shard that runs still needs its worker"
    with database.transaction() as session:
        shards.drop(session, claim)
    assert wanted(Lane.INGEST) == 1


@pytest.fixture(scope="module")
def render() -> Render:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("there is no helm on this machine: what the chart renders was not looked at")

    def rendered(**values: Any) -> list[dict[str, Any]]:
        given = ["--values", "-"]
        for command in (["lint", "--strict"], ["template", "some"]):
            done = subprocess.run(
                [helm, *command, str(_CHART), *given],
                input=json.dumps(values),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ValueError(done.stdout + done.stderr)
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return rendered


def _pod(document: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = document["spec"].get("template", {}).get("spec")
    return found


def test_every_container_is_without_rights_and_bounded(render: Render) -> None:
    pods = [pod for document in render(**_BUCKET) if (pod := _pod(document))]
    assert len(pods) == 6  # API, sweeper, migrations, and a worker for each lane
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        for module in container.get("command", [])[2:]:
            assert importlib.util.find_spec(module) is not None, module


def test_secrets_are_named_and_never_written(render: Render) -> None:
    documents = render(**_BUCKET, secrets={"service": "mine", "owner": "theirs"})
    assert not [document for document in documents if document["kind"] == "Secret"]
    for document in documents:
        if pod := _pod(document):
            (container,) = pod["containers"]
            (reference,) = container["envFrom"]
            owner = document["kind"] == "Job"
            assert reference == {"secretRef": {"name": "theirs" if owner else "mine"}}


def test_what_is_set_is_a_setting_of_the_service(render: Render) -> None:
    for document in render(**_BUCKET, settings={"ECIF_DEVICE": "cpu"}):
        if (pod := _pod(document)) and document["kind"] == "Deployment":
            environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
            assert environment["ECIF_DEVICE"] == "cpu"
            settings = Settings(**{name.lower(): value for name, value in environment.items()})
            assert settings.blob_url == "s3://bucket/prefix"
            if "worker-" in document["metadata"]["name"]:
                assert document["metadata"]["name"] == f"some-worker-{settings.ecif_lanes}"
                assert pod["terminationGracePeriodSeconds"] > settings.ecif_grace_seconds + 10


def test_migrations_come_before_everything_else(render: Render) -> None:
    (job,) = [document for document in render(**_BUCKET) if document["kind"] == "Job"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_services_and_budgets_select_pods_that_exist(render: Render) -> None:
    documents = render(**_BUCKET)
    labels = [document["spec"]["template"]["metadata"]["labels"] for document in documents if _pod(document)]
    for document in documents:
        if document["kind"] in ("Service", "PodDisruptionBudget", "Deployment"):
            selector = document["spec"]["selector"]
            assert labels.count(selector.get("matchLabels", selector)) == 1, document["metadata"]["name"]


def test_each_lane_is_scaled_or_has_its_most_workers(render: Render) -> None:
    scaled = [document for document in render(**_BUCKET) if document["kind"] == "ScaledObject"]
    assert len(scaled) == len(Lane)
    for document in scaled:
        lane = document["metadata"]["name"].removeprefix("some-worker-")
        (trigger,) = document["spec"]["triggers"]
        assert trigger["metadata"]["query"] == _scaling_query(Lane(lane))
        assert document["spec"]["scaleTargetRef"]["name"] == document["metadata"]["name"]
    unscaled = render(**_BUCKET, keda={"enabled": False})
    assert not [document for document in unscaled if document["kind"] == "ScaledObject"]
    assert [document["spec"]["replicas"] for document in unscaled if "worker-" in document["metadata"]["name"]] == [
        _VALUES["workers"][lane]["maxReplicas"] for lane in sorted(map(str, Lane))
    ]


def test_a_chart_without_a_bucket_is_refused_in_words(render: Render) -> None:
    with pytest.raises(ValueError, match="blobUrl names the bucket"):
        render()
