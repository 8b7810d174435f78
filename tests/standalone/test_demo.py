"""The pieces of the demo, each for itself."""

import csv
import io
import random
import zipfile
from typing import Any

import httpx
import pytest
from PIL import Image
from rich.console import Console
from sklearn.metrics import roc_auc_score

from standalone.demo import digits, display
from standalone.demo.digits import Digits, Pair, Plan
from standalone.demo.measure import SCORES, auroc, findings
from standalone.demo.visitor import RefusedError, Visitor

Json = dict[str, Any]


@pytest.fixture(scope="module")
def data() -> Digits:
    return digits.load(Plan())


def test_a_fifth_of_the_captions_to_be_judged_is_wrong_and_none_of_the_others(data: Digits) -> None:
    assert (len(data.training), len(data.validation)) == (1437, 360)
    assert sum(pair.planted for pair in data.training) == 287
    assert not any(pair.planted for pair in data.validation)
    keys = [pair.key for pair in data.training + data.validation]
    assert len(set(keys)) == 1797


def test_the_same_seed_gives_the_same_bytes(data: Digits) -> None:
    few = data.training[:5]
    assert digits.archive(few, Plan()) == digits.archive(digits.load(Plan()).training[:5], Plan())
    assert digits.load(Plan(seed=1)).training != data.training


def test_the_archive_holds_pictures_and_their_captions(data: Digits) -> None:
    few = data.training[:5]
    with zipfile.ZipFile(io.BytesIO(digits.archive(few, Plan()))) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("metadata.csv").decode())))
        sizes = [Image.open(io.BytesIO(archive.read(row["file_name"]))).size for row in rows]
    assert sizes == [(32, 32)] * 5
    assert [row["caption"] for row in rows] == [pair.caption for pair in few]
    assert [row["label"] for row in rows] == [str(pair.digit) for pair in few]


@pytest.mark.parametrize("decimals", [1, 9])
def test_auroc_agrees_with_scikit_learn_ties_included(decimals: int) -> None:
    draw = random.Random(0)
    planted = [draw.random() < 0.3 for _ in range(300)]
    scores = [round(draw.gauss(float(bad), 1), decimals) for bad in planted]
    assert auroc(scores, planted) == pytest.approx(roc_auc_score(planted, scores), abs=1e-12)


def test_auroc_needs_both_kinds() -> None:
    assert auroc([1.0, 2.0], [True, True]) is None
    assert auroc([], []) is None


def _row(rank: int, key: str, badness: float | None, *, flagged: bool) -> Json:
    scores = {name: None if badness is None else sign * badness for name, sign in SCORES.items()}
    return {"rank": rank, "key": key, "caption": "a handwritten one", "image_url": None, "flagged": flagged, **scores}


_ROWS = [
    _row(1, "a", 3.0, flagged=True),
    _row(2, "b", 2.0, flagged=True),
    _row(3, "c", 1.0, flagged=False),
    _row(4, "d", None, flagged=False),
]


def test_findings_count_what_was_planted() -> None:
    counted = findings(_ROWS, {"a", "c", "elsewhere"}, (1, 3))
    assert (counted.pairs, counted.planted) == (4, 2)
    assert counted.planted_at == {1: 1, 3: 2}
    assert (counted.flagged, counted.flagged_planted) == (2, 1)
    # The pair without scores is left out: a before b before c.
    assert counted.auroc == dict.fromkeys(SCORES, 0.5)


def test_the_report_shows_pairs_scores_phases_and_warnings() -> None:
    console = Console(width=110, record=True, file=io.StringIO())
    pairs = {key: Pair(key, [[0.0]], 7, 1 if key == "a" else 7) for key in "abcd"}
    summary = {
        "ranked_by": "suspicion: contrast_loss, turned 0.01 (61%); lemon, as given (39%)",
        "phases": [
            {"phase": "fit", "seconds": 4.0, "units": 15, "pairs_per_second": 5400.0},
            {"phase": "rank", "seconds": 0.5, "units": 1, "pairs_per_second": None},
        ],
        "warnings": ["nothing is flagged: 20 clean pairs cannot show it"],
    }
    display.show_outcome(console, _ROWS, pairs, findings(_ROWS, {"a"}, (1,)), summary)
    text = console.export_text()
    said = ("Among the first 1", "50% of them", "Ranked by suspicion", "Warning: nothing")
    for expected in ("a handwritten one", "5,400", "4.5", "AUROC", *said):
        assert expected in text
    display.show_outcome(console, [], {}, findings([], set(), (1,)), {})
    assert "No pair was flagged" in console.export_text()


def _jobs() -> list[Json]:
    def job(status: str, phase: str | None, done: int, total: int) -> Json:
        progress = {"done": done, "total": total, "unit": "pairs"} if total else None
        return {"status": status, "phase": phase, "progress": progress}

    return [
        job("queued", "ingest", 0, 0),
        job("running", "encode", 64, 128),
        job("running", "encode", 96, 128),
        job("running", "score", 10, 128),
        job("succeeded", None, 128, 128),
    ]


def test_progress_is_a_line_for_each_phase_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO(), width=80, record=True)
    assert display.show_progress(iter(_jobs()), console)["status"] == "succeeded"
    lines = [line.split() for line in console.export_text().splitlines()]
    assert [line[0] for line in lines] == ["ingest", "encode", "score", "succeeded"]
    assert lines[1][1:] == ["64", "of", "128", "pairs"]


def test_progress_is_bars_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    assert display.show_progress(iter(_jobs()), console)["status"] == "succeeded"
    assert "encode" in screen.getvalue()


class _Service:
    """Answers as the API does."""

    def __init__(self, end: Json) -> None:
        self.end = end
        self.requests: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.raw_path.decode()}")
        match request.method, request.url.path:
            case "POST", "/datasets":
                assert b'filename="digits.zip"' in request.content
                return httpx.Response(201, json={"id": "ds_1"})
            case "POST", "/jobs":
                return httpx.Response(202, json={"id": "job_1"})
            case "GET", "/jobs/job_1":
                if self.requests.count("GET /jobs/job_1") < 3:
                    return httpx.Response(200, json={"status": "running"}, headers={"Retry-After": "0"})
                return httpx.Response(200, json=self.end)
            case "GET", "/jobs/job_1/results":
                first = "cursor" not in request.url.params
                page = {"items": [{"rank": 1 if first else 2}], "next_cursor": "next" if first else None}
                return httpx.Response(200, json=page)
        return httpx.Response(404, json={"code": "not_found", "detail": "no such thing"})


def _visitor(service: _Service) -> Visitor:
    return Visitor("http://service", httpx.MockTransport(service))


def test_a_visitor_uploads_submits_follows_and_reads_every_page() -> None:
    service = _Service({"status": "succeeded"})
    visitor = _visitor(service)
    assert visitor.upload("digits", b"PK") == "ds_1"
    assert visitor.submit(Plan().specification("ds_1", "ds_2")) == "job_1"
    assert [job["status"] for job in visitor.follow("job_1", 60)] == ["running", "running", "succeeded"]
    assert [row["rank"] for row in visitor.results("job_1")] == [1, 2]
    visitor.close()


def test_a_visitor_tells_of_refusals_failures_and_endless_jobs() -> None:
    visitor = _visitor(_Service({"status": "failed", "error": {"message": "no usable pair"}}))
    with pytest.raises(RefusedError, match=r"GET /jobs/nothing/report was answered with 404.*no such thing"):
        visitor.report("nothing")
    with pytest.raises(RefusedError, match="the job failed: no usable pair"):
        list(visitor.follow("job_1", 60))
    with pytest.raises(RefusedError, match="still running"):
        list(_visitor(_Service({})).follow("job_1", -1))
    visitor.close()
