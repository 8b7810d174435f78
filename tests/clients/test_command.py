"""The command `ecif`: every way to name what a job is on, every listing in every format, and refusals in one line."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname
from xml.etree import ElementTree

import pytest

from ecif_client.cli import main
from tests.clients.answering import answering, as_json
from tests.clients.cutting import Cutting
from tests.clients.test_client import HTML
from tests.clients.test_uploads import arrived, unpack
from tests.service.exporting import World
from tests.service_fixtures import EmbeddingZip, ImageZip

Ecif = Callable[..., tuple[object, str, str]]
QUICK = json.dumps({"fit": None, "objective": {"batch_size": 4}})


@pytest.fixture
def ecif(server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ecif:
    """Run the command; return (exit code, what it printed, what it remarked)."""
    monkeypatch.setenv("ECIF_URL", server)
    monkeypatch.setattr("ecif_client.retrying._pause", lambda _state: 0.0)

    def run(*arguments: object) -> tuple[object, str, str]:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def made(ecif: Ecif, world: World) -> Callable[..., dict[str, Any]]:
    """Submit, do the work, and return the job."""

    def submit(*arguments: object) -> dict[str, Any]:
        code, out, err = ecif("submit", *arguments)
        assert code == 0, err
        world.work()
        code, out, err = ecif("status", out.strip(), "--json")
        assert code == 0, err
        job: dict[str, Any] = json.loads(out)
        return job

    return submit


def test_a_folder_is_submitted_and_sent_once(
    made: Callable[..., dict[str, Any]], tmp_path: Path, image_zip: ImageZip, ecif: Ecif
) -> None:
    unpack(image_zip(8), tmp_path / "pictures")
    command = (tmp_path / "pictures", "--model", "tiny", "--spec", QUICK)
    first, second = made(*command), made(*command)
    assert first["status"] == "succeeded"
    assert first["id"] != second["id"]
    assert first["spec"]["dataset"] == second["spec"]["dataset"]
    keyed = ("submit", *command, "--idempotency-key", f"step {tmp_path}")
    assert ecif(*keyed)[1] == ecif(*keyed)[1]
    code, _, err = ecif(*keyed, "--task", "traceback", "--queries", first["spec"]["dataset"])
    assert (code, err.splitlines()[-1]) == (2, "ecif: this Idempotency-Key was used for another request")


def test_a_command_that_is_killed_and_called_again_makes_one_job(
    ecif: Ecif, tmp_path: Path, embedding_zip: EmbeddingZip, cutting: Callable[..., Cutting], world: World
) -> None:
    file = tmp_path / "train.zip"
    file.write_bytes(embedding_zip(1601, width=64, seed=77))
    command = ("submit", file, "--idempotency-key", f"step {tmp_path}", "--url")
    slow = cutting(pause=0.02)
    killed = subprocess.Popen([sys.executable, "-m", "ecif_client.cli", *map(str, command), slow.url])
    try:
        arrived(world, file, 200_000)
    finally:
        killed.kill()
        killed.wait()
        slow.close()  # what was on its way has arrived
    jobs = ecif("list", "--limit", 0)[1]
    way = cutting()
    code, first, _ = ecif(*command, way.url)
    assert code == 0
    assert way.passed["up"] < file.stat().st_size - 150_000  # what had arrived was not sent again
    assert ecif(*command, way.url)[:2] == (0, first)
    assert ecif("list", "--limit", 0)[1].splitlines()[1:] == jobs.splitlines()


def test_every_task_can_be_submitted(
    made: Callable[..., dict[str, Any]], tmp_path: Path, embedding_zip: EmbeddingZip, job: str, ecif: Ecif
) -> None:
    unpack(embedding_zip(40, seed=9), tmp_path)
    matrices = ("--embeddings", tmp_path / "image.npy", tmp_path / "text.npy", "--name", "forty")
    valued = made(*matrices, "--task", "valuation", "--validation", "25%", "--spec", QUICK)
    assert valued["spec"]["validation"] == {"fraction": 0.25}
    dataset = valued["spec"]["dataset"]
    assert json.loads(ecif("datasets", dataset, "--json")[1])["name"] == "forty"
    traced = made(dataset, "--task", "traceback", "--queries", dataset, "--spec", QUICK)
    assert traced["spec"]["queries"]["dataset"] == dataset
    removed = made(dataset, "--task", "removal", "--remove-keys", "0,1", "--verify", "--spec", QUICK)
    assert removed["spec"]["remove"] == {"keys": ["0", "1"]}
    assert removed["spec"]["verify"] is True
    (tmp_path / "keys").write_text("2\n3\n")
    assert made(dataset, "--task", "removal", "--remove-keys", f"@{tmp_path / 'keys'}", "--spec", QUICK)["status"]
    flagging = json.loads(ecif("status", job, "--json")[1])["spec"]["dataset"]
    assert made(flagging, "--task", "removal", "--remove-flagged", job, "--spec", QUICK)["spec"]["remove"]["job"] == job
    assert ecif("gate", valued["id"], "--max-flagged", "5%")[0] == 2


def test_results_in_every_format(ecif: Ecif, job: str) -> None:
    rows = [json.loads(line) for line in ecif("results", job, "--limit", 0)[1].splitlines()]
    assert [row["rank"] for row in rows] == list(range(1, 61))
    assert ecif("results", job, "--limit", 0, "--json")[1] == ecif("results", job, "--limit", 0, "--output", "json")[1]
    table = list(csv.DictReader(io.StringIO(ecif("results", job, "--limit", 0, "--output", "csv")[1])))
    assert set(table[0]) == set(rows[0])
    assert [float(row["suspicion"]) for row in table] == [row["suspicion"] for row in rows]
    lines = ecif("results", job, "--limit", 3, "--output", "markdown")[1].splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("| rank | key | suspicion |")
    assert lines[1].startswith("| --- | --- |")
    assert ecif("results", job, "--limit", 3, "--output", "table")[1].split()[:2] == ["rank", "key"]
    flagged = ecif("results", job, "--flagged", "--limit", 0)[1].splitlines()
    assert len(flagged) == sum(row["flagged"] for row in rows)


def test_captions_cannot_pass_for_formulas_nor_for_columns(
    made: Callable[..., dict[str, Any]], tmp_path: Path, image_zip: ImageZip, ecif: Ecif
) -> None:
    unpack(image_zip(6), tmp_path / "p")
    metadata = tmp_path / "p" / "metadata.csv"
    metadata.write_text(metadata.read_text().replace("picture number 2", '"=1+1 | [red]x"'))
    job = made(tmp_path / "p", "--model", "tiny", "--spec", QUICK)["id"]
    assert "'=1+1 | [red]x" in ecif("results", job, "--output", "csv")[1]
    assert "| =1+1 \\| [red]x |" in ecif("results", job, "--output", "markdown")[1]
    assert "=1+1 | [red]x" in ecif("results", job, "--output", "table")[1]


def test_what_is_there_is_listed_and_shown(ecif: Ecif, job: str, tmp_path: Path) -> None:
    listed = [json.loads(line) for line in ecif("list", "--limit", 0)[1].splitlines()]
    assert job in [one["id"] for one in listed]
    valued = ecif("list", "--limit", 0, "--task", "valuation", "--output", "csv")[1].splitlines()
    assert valued[0].startswith("id,task,status")
    assert len(valued) - 1 == sum(one["task"] == "valuation" for one in listed)
    dataset = json.loads(ecif("status", job, "--json")[1])["spec"]["dataset"]
    of_dataset = ecif("list", "--dataset", dataset, "--status", "succeeded", "--limit", 0)[1].splitlines()
    assert json.loads(of_dataset[-1])["id"] == job
    assert ecif("list", "--status", "failed", "--output", "table")[0] == 0
    assert "60 pairs scored" in ecif("watch", job)[1]
    assert ecif("status", job, "--output", "markdown")[1].startswith("| id | task | status |")
    assert dataset in ecif("datasets", "--limit", 0)[1]
    assert ecif("datasets", dataset)[1].splitlines()[0] == f"{dataset}  ready"
    assert len(ecif("datasets", dataset, "--pairs", "--limit", 7)[1].splitlines()) == 7
    assert ecif("datasets", dataset, "--rejected") == (0, "", "")
    assert ecif("models") == (0, "", "")
    code, out, _ = ecif("export", job, "-o", tmp_path / "scores.csv", "--keep", "flagged")
    assert (code, out.split(":")[0]) == (0, str(tmp_path / "scores.csv"))
    assert (tmp_path / "scores.csv").stat().st_size > 0


def test_jobs_are_named_and_found_again(ecif: Ecif, made: Callable[..., dict[str, Any]], job: str) -> None:
    dataset = json.loads(ecif("status", job, "--json")[1])["spec"]["dataset"]
    named = made(dataset, "--name", "nightly", "--metadata", "run=17", "--metadata", "who=a=b", "--spec", QUICK)
    assert (named["name"], named["metadata"]) == ("nightly", {"run": "17", "who": "a=b"})
    for wanted in (("--name", "nightly"), ("--metadata", "run=17"), ("--created-after", named["created_at"][:-8])):
        listed = ecif("list", "--task", "misalignment", *wanted)[1].splitlines()
        assert [json.loads(line)["id"] for line in listed] == [named["id"]], wanted
    assert ecif("list", "--metadata", "run=18") == (0, "", "")
    assert ecif("datasets", "--created-before", "2020-01-01") == (0, "", "")
    assert ecif("list", "--metadata", "run")[0] == 2
    code, _, err = ecif("list", "--created-after", "yesterday")
    assert (code, "created_after" in err) == (2, True), err


def opened_in(opened: list[str]) -> Callable[[str], bool]:
    def open_(url: str) -> bool:
        opened.append(url)
        return True

    return open_


def test_a_report_is_opened(ecif: Ecif, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened_in(opened))
    code, out, _ = ecif("report", job)
    assert code == 0
    assert url2pathname(urlsplit(opened[0]).path) == out.strip()
    assert Path(out.strip()).read_text().startswith("<!doctype html>")
    assert ecif("report", job, "--save", tmp_path / "kept.html", "--no-open")[0] == 0
    assert (tmp_path / "kept.html").read_text() == Path(out.strip()).read_text()
    assert len(opened) == 1


def test_two_jobs_are_compared_by_their_verdicts(
    made: Callable[..., dict[str, Any]], ecif: Ecif, job: str, world: World
) -> None:
    spec = json.loads(ecif("status", job, "--json")[1])["spec"]
    stricter = {name: spec[name] for name in ("validation", "objective")}
    stricter |= {"fit": None, "flag": {"false_discovery_rate": 0.0001}}
    other = made(spec["dataset"], "--spec", json.dumps(stricter))["id"]
    flagged = json.loads(ecif("gate", job, "--max-flagged", "100%", "--json")[1])["flagged"]
    code, out, err = ecif("diff", job, other)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["verdict"] for row in rows] == ["cleared"] * flagged
    assert err == f"0 newly flagged, {flagged} no longer; 0 pairs only in {job}, 0 only in {other}\n"
    assert json.loads(ecif("diff", other, job)[1].splitlines()[0])["verdict"] == "flagged"
    assert ecif("diff", job, job)[1] == ""


def test_what_is_cancelled_or_deleted_is_gone(
    ecif: Ecif, tmp_path: Path, embedding_zip: EmbeddingZip, world: World
) -> None:
    (tmp_path / "x.zip").write_bytes(embedding_zip(20, seed=31))
    job = ecif("submit", tmp_path / "x.zip")[1].strip()
    assert "cancelled" in ecif("cancel", job)[1]
    assert ecif("status", job)[0] == 3
    assert ecif("watch", job)[0] == 3
    dataset = json.loads(ecif("list", "--limit", 1)[1])["spec"]["dataset"]
    world.work()
    assert ecif("delete", job, dataset)[:2] == (0, f"deleted {job}\ndeleted {dataset}\n")
    assert ecif("status", job)[::2] == (2, f"ecif: there is no job {job!r}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("submit", "absent.zip"), "absent.zip: no such file or folder"),
        (("submit",), "name DATA"),
        (("submit", "ds_x", "--validation", "ten%"), "'ten%' is no share between 0% and 100%"),
        (("submit", "ds_x", "--validation", "100%"), "no share"),
        (("submit", "ds_x", "--task", "valuation"), "a valuation needs --validation"),
        (("submit", "ds_x", "--task", "traceback"), "a traceback needs --queries"),
        (("submit", "ds_x", "--task", "removal"), "a removal needs --remove-keys or --remove-flagged"),
        (("submit", "ds_x", "--task", "valuation", "--spec", '{"task": "removal"}'), "--task and --spec say different"),
        (("submit", "ds_x", "--model", "RN50", "--spec", '{"model": {"id": "m"}}'), "--model and --spec say different"),
        (("submit", "ds_x", "--spec", '{"dataset": "ds_y"}'), "DATA and --spec say different things of 'dataset'"),
        (("submit", "ds_x", "--spec", "{"), "--spec is no JSON"),
        (("submit", "ds_x", "--spec", "[]"), "--spec must be a JSON object"),
        (("submit", "ds_x", "--spec", "@absent.json"), "absent.json: No such file or directory"),
        (("submit", "ds_x", "--spec", '{"tusk": 1}'), "tusk"),
        (("submit", "ds_x", "--remove-keys", "a", "--remove-flagged", "job_x"), "name one"),
        (("submit", "ds_x", "--embeddings", "a.npy", "b.npy"), "name one"),
        (("submit", "--embeddings", "a.npz", "b.npy"), "a.npz is no .npy file"),
        (("submit", __file__, "--dry-run"), "a dry run uploads and fetches nothing"),
        (("submit", "ds_x", "--idempotency-key", "schlüssel"), "printable ASCII"),
        (("submit", "ds_x", "--wait", "--timeout", "soon"), "'soon' is not a valid float"),
        (("submit", "ds_x", "--json", "--output", "csv"), "two formats"),
        (("submit", "--task", "audit", "ds_x"), "'audit' is not one of"),
        (("status", "job absent"), "'job absent' is no id of jobs"),
        (("status", "job_absent"), "there is no job"),
        (("status", "job_x", "--url", "localhost"), "no address of a service"),
        (("results", "job_absent", "--limit", "-1"), "-1 is not in the range"),
        (("export", "job_absent", "-o", "/absent/x.csv"), "no such folder"),
        (("export", "job_absent"), "Missing option '--output'"),
        (("gate", "job_x", "--max-flagged", "many"), "neither a share such as 5% nor a number of pairs"),
        (("gate", "job_x", "--max-flagged", "101%"), "neither a share"),
        (("delete", "x"), "'x' is no id of a job, a dataset or a model"),
        (("datasets", "--pairs"), "are of a DATASET"),
        (("models", "--add", "absent"), "absent: no such file"),
        (("completion", "tcsh"), "'tcsh' is not one of"),
        (("frobnicate",), "No such command 'frobnicate'"),
    ],
)
def test_a_refusal_is_one_line_and_2(ecif: Ecif, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = ecif(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert words in err


def test_an_answer_of_somebody_else_is_4(ecif: Ecif) -> None:
    with answering(HTML) as given:
        code, out, err = ecif("list", "--url", given.url)
    assert (code, out) == (4, "")
    assert err == f"ecif: {given.url} answers text/html, and not as ECIF does: is it the right address?\n"


def test_help_says_what_there_is(ecif: Ecif) -> None:
    code, out, _ = ecif("--help")
    assert code == 0
    commands = [
        "submit",
        "list",
        "status",
        "watch",
        "cancel",
        "delete",
        "results",
        "export",
        "report",
        "gate",
        "diff",
        "models",
        "datasets",
        "completion",
    ]
    assert [line.split()[0] for line in out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()] == commands
    for word in ("ECIF_URL", "ECIF_API_KEY", "service.keys", "Exit codes"):
        assert word in out
    for command in commands:
        assert ecif(command, "--help")[0] == 0
    assert ecif("--version")[1].startswith("ecif, version ")
    assert "_ECIF_COMPLETE" in ecif("completion", "bash")[1]
    assert ecif()[::2] == (2, ecif("--help")[1])


def test_the_gate_of_the_specification_is_what_counts(
    made: Callable[..., dict[str, Any]], ecif: Ecif, job: str, tmp_path: Path
) -> None:
    dataset = json.loads(ecif("status", job, "--json")[1])["spec"]["dataset"]
    policy = tmp_path / "gate.json"
    policy.write_text(json.dumps({"error": {"rejected": 0.0}, "warn": {"columns": {"clip_score": {"min": 2.0}}}}))
    warned = made(dataset, "--spec", QUICK, "--gate", f"@{policy}")["id"]
    assert "\ngate: warn; the mean of clip_score is " in ecif("status", warned, "--output", "table")[1]
    code, out, _ = ecif("gate", warned)
    assert (code, out.splitlines()[0]) == (0, "passed: 0 % of the pairs were turned away; at most 0 % is allowed")
    assert out.splitlines()[1].startswith("warning: the mean of clip_score is ")
    verdict = json.loads(ecif("gate", warned, "--max-flagged", "100%", "--json")[1])
    assert (verdict["passed"], verdict["verdict"]) == (True, "warn")
    assert [check["rule"] for check in verdict["checks"]] == ["rejected", "columns.clip_score", "max-flagged"]
    failed = made(dataset, "--spec", QUICK, "--gate", '{"error": {"columns": {"clip_score": {"min": 2}}}}')["id"]
    for form in ("text", "junit", "github", "markdown"):
        assert ecif("gate", failed, "--format", form)[0] == 1
        assert ecif("gate", warned, "--format", form)[0] == 0
    suite = ElementTree.fromstring(ecif("gate", failed, "--format", "junit")[1])[0]  # noqa: S314  our own
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert suite[0].get("name") == "error columns.clip_score at least 2"
    assert "at least 2 is allowed" in (suite[0][0].get("message") or "")
    lines = ecif("gate", warned, "--format", "github")[1].splitlines()
    assert lines[0].startswith(f"::notice title=ecif gate {warned}%3A error rejected at most 0::0 %25 of the pairs")
    assert lines[1].startswith("::warning title=")
    assert "| FAILED | error | columns.clip_score | the mean of" in ecif("gate", failed, "--format", "markdown")[1]
    code, _, err = ecif("gate", job)
    assert (code, "has no gate in its specification" in err) == (2, True)
    assert ecif("gate", warned, "--format", "junit", "--json")[0] == 2


def test_results_are_searched_bounded_and_cut_to_columns(ecif: Ecif, job: str) -> None:
    code, out, _ = ecif("results", job, "--columns", "key,clip_score", "--max", "clip_score=0.5", "--limit", "3")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows)) == (0, 3)
    assert all(set(row) <= {"rank", "key", "clip_score"} and row["clip_score"] <= 0.5 for row in rows)
    assert ecif("results", job, "--caption", "no such words")[1] == ""
    code, _, err = ecif("results", job, "--min", "clip_score")
    assert (code, err) == (2, "ecif: --min: 'clip_score' is no bound such as clip_score=0.2\n")
    assert "did you mean 'clip_score'?" in ecif("results", job, "--min", "clip_scor=0.2")[2]


def test_a_listing_asks_for_no_more_than_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    page = {"items": [{"id": f"job_{n}"} for n in range(3)], "next_cursor": None, "total": 3}
    with answering(as_json(page)) as given:
        assert main(["list", "--limit", "3", "--url", given.url, "--json"]) == 0
        assert main(["list", "--limit", "0", "--url", given.url, "--json"]) == 0
    assert [request for request, _ in given.requests] == ["GET /jobs?limit=3", "GET /jobs?limit=1000"]
