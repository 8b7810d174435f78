"""Blobs in a folder and in a bucket: the same to whoever uses them."""

from pathlib import Path

import pytest

from store.blobs import Blobs


@pytest.fixture(params=["folder", "bucket"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "folder":
        return Blobs(tmp_path.as_uri())
    request.getfixturevalue("s3_bucket")
    return Blobs("s3://pairs/some/prefix")


def test_what_is_put_is_there_until_its_owner_goes(anywhere: Blobs, tmp_path: Path) -> None:
    anywhere.put("datasets/a/x", b"0123456789")
    anywhere.put("datasets/ab/x", b"another's")
    with anywhere.staging() as folder:
        (folder / "file").write_bytes(b"adopted")
        anywhere.adopt(folder / "file", "datasets/a/y")
    assert anywhere.get("datasets/a/x") == b"0123456789"
    assert anywhere.get_range("datasets/a/x", 3, 4) == b"3456"
    assert b"".join(anywhere.stream("datasets/a/y")) == b"adopted"
    with anywhere.open("datasets/a/x") as file:
        file.seek(8)
        assert file.read() == b"89"
    with anywhere.local_path("datasets/a/y") as path:
        assert path.read_bytes() == b"adopted"
    anywhere.delete_prefix("datasets/a")
    assert [anywhere.exists(f"datasets/{name}") for name in ("a/x", "a/y", "ab/x")] == [False, False, True]
    with pytest.raises(FileNotFoundError):
        anywhere.get("datasets/a/x")
