"""Data sets with a description that mlcroissant wrote."""

import json
from pathlib import Path
from typing import Any

import mlcroissant as mlc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from readers.formats.registry import Format
from readers.pairs import ImagePair
from tests.readers.conftest import ReadUpload, Refusal, Zipped
from tests.readers.writers import jpeg, zip_of

NO_HASH = "0" * 64
ROWS = [("0.jpg", "a cat", 3), ("1.jpg", "a dog", 4)]


def file_object(name: str, encoding: str, url: str | None = None) -> Any:
    return mlc.FileObject(id=name, name=name, content_url=url or name, encoding_formats=[encoding], sha256=NO_HASH)


def column(source: str, name: str, kind: str = "file_object", **more: Any) -> Any:
    return mlc.Source(**{kind: source}, extract=mlc.Extract(column=name), **more)


def field(name: str, data_type: Any, source: Any, **more: Any) -> Any:
    return mlc.Field(id=f"pairs/{name}", name=name, data_types=data_type, source=source, **more)


def describe(folder: Path, distribution: Any, *fields: Any) -> None:
    """Write `croissant.json` for one record set of these fields."""
    metadata = mlc.Metadata(
        name="pets",
        description="pets",
        url="https://example.org",
        license=["https://creativecommons.org/licenses/by/4.0/"],
        version="1.0.0",
        cite_as="nobody",
        date_published="2026-01-01",
        distribution=distribution,
        record_sets=[mlc.RecordSet(id="pairs", name="pairs", fields=list(fields))],
    )
    (folder / "croissant.json").write_text(json.dumps(metadata.to_json(), default=str))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    (path / "images").mkdir(parents=True)
    for n in range(2):
        (path / "images" / f"{n}.jpg").write_bytes(jpeg(n))
    lines = [",".join(map(str, row)) for row in (("picture", "description", "label"), *ROWS)]
    (path / "table.csv").write_text("\n".join(lines) + "\n")
    return path


def table_and_files(folder: Path, **more: Any) -> None:
    """A CSV whose column of names refers to the files of a file set."""
    distribution = [
        file_object("table.csv", "text/csv", more.get("url")),
        file_object("images.zip", "application/zip"),
        mlc.FileSet(
            id="files",
            name="files",
            contained_in=["images.zip"],
            encoding_formats=["image/jpeg"],
            includes=["images/*.jpg"],
        ),
    ]
    in_files = {
        name: mlc.Source(file_set="files", extract=mlc.Extract(file_property=name)) for name in ("filename", "content")
    }
    describe(
        folder,
        distribution,
        field("name", mlc.DataType.TEXT, column("table.csv", "picture"), references=in_files["filename"]),
        field("image", mlc.DataType.IMAGE_OBJECT, in_files["content"]),
        field("caption", mlc.DataType.TEXT, column("table.csv", "description")),
    )


def test_a_table_that_refers_to_a_set_of_files(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    table_and_files(folder)
    found = read(zip_of(folder, tmp_path / "upload.zip"))
    assert (found.format, found.rejected, found.left_out) == (Format.CROISSANT, [], {})
    assert found.pairs == [
        ImagePair("0.jpg", "a cat", jpeg(0), {"label": "3"}),
        ImagePair("1.jpg", "a dog", jpeg(1), {"label": "4"}),
    ]


def test_a_description_of_files_elsewhere_finds_them_beside_it(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    table_and_files(folder, url="https://example.org/data/table.csv?download=true")
    assert len(read(zip_of(folder, tmp_path / "upload.zip")).pairs) == 2


def test_a_table_of_paths(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    (folder / "table.csv").write_text("path,text\nimages/0.jpg,a cat\nimages/7.jpg,gone\n")
    describe(
        folder,
        [file_object("table.csv", "text/csv")],
        field("image", mlc.DataType.IMAGE_OBJECT, column("table.csv", "path")),
        field("text", mlc.DataType.TEXT, column("table.csv", "text")),
    )
    found = read(zip_of(folder, tmp_path / "upload.zip"))
    assert [(pair.key, pair.caption, pair.image) for pair in found.pairs] == [("images/0.jpg", "a cat", jpeg(0))]
    assert found.reasons == ["row 2 of table.csv, line 3: no file images/7.jpg in the archive"]


def test_parquet_as_the_hub_describes_it(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    (folder / "default").mkdir()
    for n, (name, caption, label) in enumerate(ROWS):
        row = {"img": {"bytes": jpeg(n), "path": name}, "what": caption, "label": label}
        pq.write_table(pa.Table.from_pylist([row]), folder / "default" / f"{n:04d}.parquet")
    files = mlc.FileSet(
        id="parquet",
        name="parquet",
        contained_in=["repo"],
        encoding_formats=["application/x-parquet"],
        includes=["default/*.parquet"],
    )
    repo = mlc.FileObject(
        id="repo", name="repo", content_url="https://example.org/repo", encoding_formats=["git+https"], sha256=NO_HASH
    )
    image = column("parquet", "img", "file_set", transforms=[mlc.Transform(json_path="bytes")])
    describe(
        folder,
        [repo, files],
        field("image", mlc.DataType.IMAGE_OBJECT, image),
        field("caption", mlc.DataType.TEXT, column("parquet", "what", "file_set")),
    )
    found = read(zip_of(folder, tmp_path / "upload.zip"))
    assert found.pairs == [
        ImagePair("0.jpg", "a cat", jpeg(0), {"label": 3}),
        ImagePair("1.jpg", "a dog", jpeg(1), {"label": 4}),
    ]


CSV = [file_object("table.csv", "text/csv")]
IMAGE = field("image", mlc.DataType.IMAGE_OBJECT, column("table.csv", "picture"))


@pytest.mark.parametrize(
    ("distribution", "fields", "why"),
    [
        (CSV, [IMAGE], "one record set of an image and a text is read; of 1 that is none"),
        (
            CSV,
            [IMAGE, *(field(name, mlc.DataType.TEXT, column("table.csv", name)) for name in ("one", "other"))],
            "fields of text: which is meant is not told; there are one, other",
        ),
        (
            CSV,
            [
                IMAGE,
                field(
                    "caption",
                    mlc.DataType.TEXT,
                    column("table.csv", "description", transforms=[mlc.Transform(regex="(.*)")]),
                ),
            ],
            "field caption is not a column of a table as it stands",
        ),
        (
            [file_object("gone.csv", "text/csv")],
            [
                field("image", mlc.DataType.IMAGE_OBJECT, column("gone.csv", "picture")),
                field("caption", mlc.DataType.TEXT, column("gone.csv", "description")),
            ],
            "gone.csv is not in the upload",
        ),
        (
            [*CSV, file_object("other.csv", "text/csv")],
            [
                field("image", mlc.DataType.IMAGE_OBJECT, column("other.csv", "picture")),
                field("caption", mlc.DataType.TEXT, column("table.csv", "description")),
            ],
            "field image is neither a column of the table of caption nor the content of files",
        ),
    ],
)
def test_a_description_of_something_else_is_refused_with_its_reason(
    folder: Path, tmp_path: Path, distribution: list[Any], fields: list[Any], why: str
) -> None:
    from readers.refusals import UploadRefused
    from readers.upload import UploadReader

    describe(folder, distribution, *fields)
    with pytest.raises(UploadRefused) as caught, UploadReader(zip_of(folder, tmp_path / "upload.zip")):
        pass
    assert caught.value.code == "unreadable_croissant"
    assert why in caught.value.message


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"recordSet": {"field": [[1], {"source": 3}]}}'])
def test_a_broken_description_is_refused(zipped: Zipped, refusal: Refusal, content: bytes) -> None:
    assert refusal(zipped({"croissant.json": content, "a.jpg": b"A"})).code == "unreadable_croissant"
