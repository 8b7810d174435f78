"""The command `ecif` against the whole service."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecif_client.cli import main
from standalone.stack import Stack
from tests.service_fixtures import EmbeddingZip

Ecif = Callable[..., tuple[object, str, str]]


@pytest.fixture
def ecif(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ecif:
    """Run the command; return (exit code, what it printed, what it remarked)."""
    monkeypatch.setenv("ECIF_URL", stack.url)

    def run(*arguments: object) -> tuple[object, str, str]:
        try:
            code: object = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def files(tmp_path: Path, embedding_zip: EmbeddingZip) -> Path:
    (tmp_path / "train.zip").write_bytes(embedding_zip(60, wrong=12))
    (tmp_path / "clean.zip").write_bytes(embedding_zip(200, seed=7))
    return tmp_path


def test_from_files_to_a_gate(ecif: Ecif, files: Path) -> None:
    spec = json.dumps({"objective": {"batch_size": 20, "temperature": 0.1}, "flag": {"false_discovery_rate": 0.2}})
    clean = files / "clean.zip"
    code, out, err = ecif("submit", files / "train.zip", "--validation", clean, "--spec", spec, "--wait", "--json")
    assert code == 0, err
    job = json.loads(out)
    assert job["status"] == "succeeded"

    code, out, _ = ecif("status", job["id"])
    assert code == 0
    assert "60 pairs scored" in out

    code, out, _ = ecif("results", job["id"], "--limit", 5)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]

    dry = ("submit", job["spec"]["dataset"], "--validation", "10%", "--spec", spec, "--dry-run")
    code, out, _ = ecif(*dry)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == ["phase", *(phase["phase"] for phase in job["summary"]["phases"]), "all"]
    assert rows[1][-3:] == ["–", "1", "finished"]  # no GPU memory, by one job
    assert json.loads(ecif(*dry, "--json")[1])["seconds"] > 0

    flagged = job["summary"]["counts"]["flagged"]
    assert flagged > 0
    assert ecif("gate", job["id"], "--max-flagged", flagged)[0] == 0
    code, out, _ = ecif("gate", job["id"], "--max-flagged", "0.1%", "--json")
    assert code == 1
    verdict = json.loads(out)
    assert verdict.items() >= {"passed": False, "flagged": flagged, "scored": 60, "share": flagged / 60}.items()


def test_a_job_that_failed_is_3(ecif: Ecif, files: Path) -> None:
    (files / "noise.zip").write_bytes(b"PK\3\4 no zip at all")
    code, _, err = ecif("submit", files / "noise.zip", "--wait")
    assert code == 3
    assert "failed" in err
    dataset = next(word for word in err.split() if word.startswith("ds_"))
    assert ecif("submit", dataset)[0] == 3  # as its ingest may end before the job is asked for
    code, out, _ = ecif("submit", files / "train.zip", "--task", "valuation", "--validation", "10%")
    assert code == 0
    assert ecif("gate", out.split()[-1], "--max-flagged", "5%")[0] == 2  # a valuation flags nothing


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "absent.zip"),
        ("submit", "ds_absent"),
        ("submit", "ds_x", "--spec", "{"),
        ("submit", "ds_x", "--spec", "@absent.json"),
        ("submit", "ds_x", "--spec", '{"tusk": 1}'),
        ("submit", __file__, "--dry-run"),
        ("submit", "ds_x", "--validation", "https://example.org/x.tar", "--dry-run"),
        ("status", "job_absent"),
        ("gate", "job_x", "--max-flagged", "many"),
        ("gate", "job_x", "--max-flagged", "101%"),
        ("frobnicate",),
        (),
    ],
)
def test_usage_is_2(ecif: Ecif, arguments: tuple[Any, ...]) -> None:
    code, out, err = ecif(*arguments)
    assert (code, out) == (2, "")
    assert err


def test_nobody_there_is_4(ecif: Ecif, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecif_client.retrying._pause", lambda _: 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, _, err = ecif("status", "job_x", "--url", f"http://127.0.0.1:{port}")
    assert code == 4
    assert "does not answer" in err


def test_waiting_too_long_is_4(ecif: Ecif, files: Path) -> None:
    code, _, err = ecif("submit", files / "train.zip", "--wait", "--timeout", 0)
    assert code == 4
    assert "still" in err
