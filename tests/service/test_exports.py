"""Exports: everything that came in goes out again, with the scores, whole, in rank order, and as the tools want it."""

import csv
import io
import json
import tarfile
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from pyarrow import parquet
from sqlalchemy import func, update

from service.exports import source
from service.exports.text import safe
from store import exports
from store.tables import SCORES, Dataset
from tests.service.exporting import ROWS, UIDS, World
from tests.service_fixtures import ProblemOf, picture

CAPTIONS = {row["file_name"]: row["caption"] for row in ROWS}


def jsonl(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.decode().splitlines()]


def test_jsonl_is_the_results_and_every_column_that_came(world: World, job: str) -> None:
    rows, results = jsonl(world.export(job, "jsonl")), world.results(job)
    assert [row["rank"] for row in rows] == list(range(1, 13))
    came = {row["file_name"]: row for row in ROWS}
    for row, result in zip(rows, results, strict=True):
        judged = dict.fromkeys(source.MARK_COLUMNS)  # nobody did
        assert {name: row[name] for name in source.RESULT_COLUMNS} == {
            name: result[name] for name in source.RESULT_COLUMNS if name not in judged
        } | judged
        extra = {name: value for name, value in row.items() if name not in source.RESULT_COLUMNS}
        expected = {**came[row["key"]]}
        assert expected.pop("file_name") == row["key"]
        assert expected.pop("caption") == row["caption"]
        expected["input_rank"] = expected.pop("rank")
        assert extra == expected


def test_csv_is_whole_and_safe_to_open_in_a_spreadsheet(world: World, job: str) -> None:
    answer = world.client.get(f"/jobs/{job}/export")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job}.all.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline=""), strict=True))
    assert len(rows) == 12
    for row in rows:
        for value in (*row, *row.values()):
            assert not value.startswith(("=", "+", "@", "\t", "\r")), value
            if value.startswith("-"):
                float(value)
    by_key = {row["key"]: row for row in rows}
    for key, caption in CAPTIONS.items():
        assert by_key[key]["caption"] in (caption, "'" + caption)
    assert by_key["images/3.png"]["caption"] == "-3.5"
    assert by_key["images/5.png"]["'+formula"] == "'\r=1+1"
    assert json.loads(by_key["images/0.png"]["tags"]) == ["a", {"b": 0}]
    assert [by_key[f"images/{n}.png"]["hash"] for n in range(12)] == [str(2**64 - 1 - n) for n in range(12)]
    assert by_key["images/0.png"]["seen"] == "true"
    assert by_key["images/0.png"]["sometimes"] == ""
    for row, result in zip(rows, world.results(job), strict=True):
        for score in SCORES:
            assert row[score] == ("" if result[score] is None else repr(result[score]))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("=1", "'=1"), ("-1", "-1"), ("+1.5e-3", "+1.5e-3"), ("-1+1", "'-1+1"), ("-", "'-"), ("", ""), (-1.5, -1.5),
     ("\n=1", "'\n=1"), ("＝1", "'＝1"), ("a=1", "a=1"), (["=1"], '["=1"]'), (True, "true"), (None, None)],
)  # fmt: skip
def test_a_cell_that_would_be_a_formula_becomes_text(cell: object, expected: str | float | None) -> None:
    assert safe(cell) == expected


@pytest.mark.parametrize("start", ["-", "-1.", "-1e"])
def test_a_long_cell_is_judged_in_linear_time(start: str) -> None:
    """Quadratic, the first of them takes hours."""
    cell = start + "1" * 1_000_000 + "x"
    began = time.perf_counter()
    assert safe(cell) == "'" + cell
    assert time.perf_counter() - began < 2


def test_parquet_has_typed_columns(world: World, job: str) -> None:
    answer = world.client.get(f"/jobs/{job}/export", params={"format": "parquet"})
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = parquet.read_table(pa.BufferReader(answer.content))
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds.pop("flagged") == "bool"
    assert {kinds.pop(score) for score in SCORES} == {"double"}
    assert kinds.pop("why") == "list<element: struct<column: string, contribution: double>>"
    assert kinds == {
        "better_caption": "string", "exchanged_with": "string", **dict.fromkeys(source.MARK_COLUMNS, "string"),
        "rank": "int64", "query": "string", "key": "string", "caption": "string", "label": "int64", "uid": "string",
        "width": "double", "seen": "bool", "hash": "uint64", "input_rank": "string", "tags": "string",
        "mixed": "string", "huge": "string", "sometimes": "int64", "+formula": "string",
    }  # fmt: skip
    rows = jsonl(world.export(job, "jsonl"))
    for row, exact in zip(table.to_pylist(), rows, strict=True):
        assert json.loads(row.pop("tags")) == exact.pop("tags")
        assert (row.pop("huge"), row.pop("mixed")) == (str(exact.pop("huge")), str(exact.pop("mixed")))
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in exact.items() if value is not None
        }


def test_marks_are_in_each_format_and_make_another_export(world: World, job: str) -> None:
    rows = world.results(job)
    before = world.client.get(f"/jobs/{job}/export").headers["etag"]
    relabelled, kept = (f"/jobs/{job}/marks/{rows[place]['key']}" for place in (1, 4))
    sampled = {"mark": "drop", "sample": True}
    assert world.client.put(relabelled, json=sampled).status_code == 200
    world.client.put(relabelled, json={"mark": "relabel", "caption": "=a cat"})  # later, so it is what counts
    world.client.put(kept, json={"mark": "keep"})
    after = world.client.get(f"/jobs/{job}/export")
    assert after.headers["etag"] != before
    lines = jsonl(world.export(job, "jsonl"))
    expected: list[tuple[str | None, str | None]] = [(None, None)] * 12
    expected[1], expected[4] = ("relabel", "=a cat"), ("keep", None)
    assert [(row["mark"], row["mark_caption"]) for row in lines] == expected
    assert datetime.fromisoformat(lines[1]["marked_at"]) <= datetime.now(UTC)
    assert lines[1]["marked_by"] is None
    cells = list(csv.DictReader(io.StringIO(after.text, newline="")))
    assert [(row["mark"], row["mark_caption"]) for row in cells[1:5:3]] == [("relabel", "'=a cat"), ("keep", "")]
    table = parquet.read_table(pa.BufferReader(world.export(job, "parquet"))).to_pylist()
    assert [(row["mark"], row["mark_caption"]) for row in table] == expected
    with tarfile.open(fileobj=io.BytesIO(world.export(job, "open_clip"))) as tar:
        tsv = tar.extractfile("pairs.tsv").read().decode()
    lines_of_tsv = list(csv.DictReader(io.StringIO(tsv), delimiter="\t"))
    assert [(row["mark"] or None, row["mark_caption"] or None) for row in lines_of_tsv] == expected
    with tarfile.open(fileobj=io.BytesIO(world.export(job, "webdataset"))) as tar:
        beside = [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]
    assert [(row["mark"], row["mark_caption"]) for row in beside] == expected
    for url in (relabelled, f"{relabelled}?sample=true", kept):
        world.client.delete(url)
    assert world.client.get(f"/jobs/{job}/export").headers["etag"] == before


def test_an_export_says_why_in_each_format(world: World, explained: str) -> None:
    told = ("why", "better_caption", "exchanged_with")
    expected = [{name: row[name] for name in told} for row in world.results(explained)]
    lines = jsonl(world.export(explained, "jsonl"))
    assert [{name: row[name] for name in told} for row in lines] == expected
    assert {row["input_why"] for row in lines} == {"came too"}
    table = parquet.read_table(pa.BufferReader(world.export(explained, "parquet"))).to_pylist()
    assert [{name: row[name] for name in told} for row in table] == expected
    cells = list(csv.DictReader(io.StringIO(world.export(explained, "csv").decode(), newline="")))
    assert [json.loads(row["why"]) for row in cells] == [row["why"] for row in expected]
    assert [row["better_caption"] or None for row in cells] == [row["better_caption"] for row in expected]
    with tarfile.open(fileobj=io.BytesIO(world.export(explained, "open_clip"))) as tar:
        member = tar.extractfile("pairs.tsv")
        assert member is not None
        rows = list(csv.DictReader(io.StringIO(member.read().decode(), newline=""), delimiter="\t"))
    assert [json.loads(row["why"]) for row in rows] == [row["why"] for row in expected]


def test_npy_is_a_subset_as_datacomp_has_them(world: World, job: str) -> None:
    subset = np.load(io.BytesIO(world.export(job, "npy")))
    expected = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in UIDS], np.dtype("u8,u8"))
    assert subset.dtype == np.dtype("u8,u8")
    assert (subset == np.sort(expected)).all()


def test_what_is_kept_adds_up(world: World, embeddings: str) -> None:
    flagged, clean, every = ([row["key"] for row in jsonl(world.export(embeddings, "jsonl", keep))]
                             for keep in ("flagged", "clean", "all"))  # fmt: skip
    assert flagged == [row["key"] for row in world.results(embeddings, flagged=True)]
    assert clean == [row["key"] for row in world.results(embeddings, flagged=False)]
    assert 0 < len(flagged) < 60
    assert len(every) == 60
    assert sorted(flagged + clean) == sorted(every)


def test_an_export_of_nothing_is_a_table_without_rows(world: World, job: str) -> None:
    assert not world.results(job, flagged=True)
    assert len(world.export(job, "csv", "flagged").splitlines()) == 1
    assert parquet.read_table(pa.BufferReader(world.export(job, "parquet", "flagged"))).num_rows == 0
    assert np.load(io.BytesIO(world.export(job, "npy", "flagged"))).shape == (0,)
    with tarfile.open(fileobj=io.BytesIO(world.export(job, "webdataset", "flagged"))) as tar:
        assert tar.getnames() == []


def test_pieces_join_without_a_seam(world: World, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {form: world.export(job, form) for form in ("csv", "jsonl", "webdataset", "npy", "open_clip")}
    typed = parquet.read_schema(pa.BufferReader(world.export(job, "parquet")))
    for name, value in (("_ROWS", 5), ("_FETCHED", 2), ("_TEXT", 100)):
        monkeypatch.setattr(exports, name, value)
        assert {form: world.export(job, form) for form in whole} == whole
    monkeypatch.setattr("service.exports.parquet._GROUP_ROWS", 3)
    table = parquet.ParquetFile(pa.BufferReader(world.export(job, "parquet")))
    assert table.num_row_groups > 1
    assert table.schema_arrow == typed
    assert table.read()["rank"].to_pylist() == list(range(1, 13))


def test_a_job_that_is_deleted_meanwhile_does_not_pass_for_a_whole_one(
    world: World, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_ROWS", 5)
    monkeypatch.setattr("service.exports.source._expected", lambda _job, _keep: 13)
    with pytest.raises(RuntimeError, match="12 of 13 rows"):
        TestClient(world.client.app).get(f"/jobs/{job}/export")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"format": "webdataset"}, "no_images"),
        ({"format": "open_clip"}, "no_images"),
        ({"format": "npy"}, "no_uids"),
    ],
)
def test_formats_that_make_no_sense_are_refused_with_the_reason(
    world: World, embeddings: str, problem_of: ProblemOf, params: dict[str, str], code: str
) -> None:
    problem = problem_of(world.client.get(f"/jobs/{embeddings}/export", params=params))
    assert (problem["status"], problem["code"]) == (409, code)


def test_keeping_what_nobody_flagged_is_refused(world: World, valuation: str, problem_of: ProblemOf) -> None:
    for keep in ("clean", "flagged"):
        problem = problem_of(world.client.get(f"/jobs/{valuation}/export", params={"keep": keep}))
        assert (problem["status"], problem["code"]) == (409, "nothing_flagged")
    assert len(jsonl(world.export(valuation, "jsonl"))) == 48


def test_a_traceback_is_a_list_by_query_and_no_dataset(world: World, traceback: str, problem_of: ProblemOf) -> None:
    rows = jsonl(world.export(traceback, "jsonl"))
    assert len(rows) == 300
    assert [row["query"] for row in rows[:4]] == ["0", "0", "0", "1"]
    for form in ("npy", "webdataset", "open_clip"):
        problem = problem_of(world.client.get(f"/jobs/{traceback}/export", params={"format": form}))
        assert (problem["status"], problem["code"]) == (409, "not_a_dataset")


def test_a_dataset_that_is_deleted_leaves_its_table_but_no_images(
    world: World, job: str, problem_of: ProblemOf
) -> None:
    dataset = world.client.get(f"/jobs/{job}").json()["spec"]["dataset"]

    def mark(deleted_at: Any) -> None:
        with world.database.transaction() as session:
            session.execute(update(Dataset).where(Dataset.id == dataset).values(deleted_at=deleted_at))

    mark(func.now())
    try:
        assert len(jsonl(world.export(job, "jsonl"))) == 12
        problem = problem_of(world.client.get(f"/jobs/{job}/export", params={"format": "webdataset"}))
    finally:
        mark(None)
    assert (problem["status"], problem["code"]) == (409, "no_images")
    assert "deleted" in problem["detail"]


@pytest.mark.parametrize(("limit", "value"), [("_MOST_COLUMNS", 10), ("_LONGEST_NAME", 8)])
def test_columns_that_are_too_many_for_a_table_are_jsonl(
    world: World, job: str, problem_of: ProblemOf, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(f"service.exports.source.{limit}", value)
    for form in ("csv", "parquet", "open_clip"):
        problem = problem_of(world.client.get(f"/jobs/{job}/export", params={"format": form}))
        assert (problem["status"], problem["code"]) == (409, "too_many_columns")
    assert len(jsonl(world.export(job, "jsonl"))) == 12


def test_a_job_that_has_not_succeeded_has_nothing_to_export(
    world: World, embeddings: str, problem_of: ProblemOf
) -> None:
    dataset = world.client.get(f"/jobs/{embeddings}").json()["spec"]["dataset"]
    job = world.client.post("/jobs", json={"task": "misalignment", "dataset": dataset}).json()["id"]
    refusals = [problem_of(world.client.get(f"/jobs/{job}/{what}")) for what in ("results", "export")]
    assert refusals[0] == refusals[1]
    assert refusals[0]["status"] == 409
    world.client.delete(f"/jobs/{job}")


def test_names_that_a_result_has_too_are_set_apart() -> None:
    assert source.own_names(["rank", "a", "input_rank"]) == {
        "rank": "input_input_rank",
        "a": "a",
        "input_rank": "input_rank",
    }


def test_the_webdataset_holds_the_images_as_they_came(world: World, job: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(world.export(job, "webdataset"))) as tar:
        names = tar.getnames()
        assert names[:3] == ["000000001.png", "000000001.txt", "000000001.json"]
        read = {name: tar.extractfile(name).read() for name in names}
    assert len(read) == 36
    for rank, row in enumerate(jsonl(world.export(job, "jsonl")), start=1):
        assert json.loads(read[f"{rank:09d}.json"]) == row
        assert read[f"{rank:09d}.txt"].decode() == row["caption"]
        assert read[f"{rank:09d}.png"] == picture(int(row["key"].removeprefix("images/").removesuffix(".png")))
