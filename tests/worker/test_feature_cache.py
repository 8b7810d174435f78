"""Features are encoded once: for the next job, for the next dataset that shares images or captions, for one tenant."""

import csv
import io
import threading
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from encoders import digest
from encoders.loaded_model import LoadedModel
from store import api_keys
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import EncodedPart, Feature
from tests.service_fixtures import Upload, Work, picture
from worker.analysis.features import Keys
from worker.attempts.attempt import Workplace, work_once
from worker.sweeper import sweep

Encode = Callable[..., tuple[str, dict[str, Any], dict[str, float]]]

SPEC = {"task": "misalignment", "fit": None, "methods": ["clip_score"], "model": {"architecture": "tiny"}}


def zip_of(seeds: Iterable[int], caption: str = "picture number {}") -> bytes:
    """Pictures drawn from these seeds, in this order, each with its caption."""
    table, out = io.StringIO(), io.BytesIO()
    rows = csv.writer(table)
    rows.writerow(["file_name", "caption"])
    with zipfile.ZipFile(out, "w") as archive:
        for seed in seeds:
            rows.writerow([f"{seed}.png", caption.format(seed)])
            archive.writestr(f"{seed}.png", picture(seed))
        archive.writestr("metadata.csv", table.getvalue())
    return out.getvalue()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"ecif_shard_pairs": 16})  # so that a dataset has parts


@pytest.fixture
def encode(client: TestClient, upload: Upload, work: Work) -> Encode:
    """Run a job on a dataset, given or to be uploaded; return (dataset, what was encoded, clip scores by key)."""

    def run(dataset: str | Iterable[int], **spec: Any) -> tuple[str, dict[str, Any], dict[str, float]]:
        if not isinstance(dataset, str):
            dataset = str(upload(zip_of(dataset))["id"])
        job = client.post("/jobs", json={**SPEC, **spec, "dataset": dataset}).json()
        work()
        job = client.get(f"/jobs/{job['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        page = client.get(f"/jobs/{job['id']}/results").json()
        return dataset, job["summary"]["encoding"], {row["key"]: row["clip_score"] for row in page["items"]}

    return run


def counts(encoded: int, reused: int) -> dict[str, dict[str, int]]:
    return {key: {"encoded": encoded, "reused": reused} for key in ("images", "captions")}


@pytest.fixture
def silent_sweep(database: Database, blobs: Blobs) -> Callable[[Settings], None]:
    return lambda settings: sweep(database, blobs, type("Silent", (), {"ring": lambda *_: None})(), settings)


def test_the_same_data_again_encodes_nothing_and_one_percent_more_one_percent(
    encode: Encode,
) -> None:
    dataset, first, scores = encode(range(100))
    assert first == counts(100, 0)
    _, again, same = encode(dataset)
    assert again == counts(0, 100)
    assert same == scores
    shuffled = [*range(99, 0, -1), 1000]  # one pair of a hundred is another
    _, more, others = encode(shuffled)
    assert more == counts(1, 99)
    assert {key: score for key, score in others.items() if key in scores}.items() <= scores.items()
    assert len(others) == 100


def test_after_an_upgrade_of_a_library_everything_is_encoded_anew(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, first, scores = encode(range(4))
    installed = digest.encoder_versions()
    assert set(installed) > {"encoder", "torch", "open_clip_torch", "pillow"}
    monkeypatch.setattr(digest, "encoder_versions", lambda: installed | {"pillow": "999.0"})
    _, again, same = encode(dataset)
    assert first == again == counts(4, 0)
    assert same == scores


def test_each_image_and_each_caption_by_itself(client: TestClient, upload: Upload, encode: Encode) -> None:
    encode(range(20))
    other = upload(zip_of(range(10, 30), caption="one caption for all"))["id"]
    _, encoding, _ = encode(other)
    assert encoding == {"images": {"encoded": 10, "reused": 10}, "captions": {"encoded": 1, "reused": 19}}


def test_another_model_and_another_scope_encode_anew(
    encode: Encode,
) -> None:
    dataset, _, _ = encode(range(8))
    assert encode(dataset, objective={"seed": 1})[1] == counts(8, 0)
    assert encode(dataset, objective={"scope": "all"})[1] == counts(8, 0)
    assert encode(dataset, objective={"scope": "lora"})[1] == counts(0, 8)


def test_another_tenant_finds_nothing(client: TestClient, database: Database, work: Work) -> None:
    encodings = []
    for tenant in ("ours", "theirs", "ours"):
        with database.transaction() as session:
            secret = api_keys.create(session, tenant, None)[1]
        caller = TestClient(client.app, headers={"Authorization": f"Bearer {secret}"})
        dataset = caller.post("/datasets", files={"file": ("x.zip", zip_of(range(6)))}).json()["id"]
        job = caller.post("/jobs", json={**SPEC, "dataset": dataset}).json()["id"]
        work()
        encodings.append(caller.get(f"/jobs/{job}").json()["summary"]["encoding"])
    assert encodings == [counts(6, 0), counts(6, 0), counts(0, 6)]


def test_keys_are_wide_and_of_whom_which_model_and_which_tower() -> None:
    made = {
        Keys(tenant, digest).of(side, b"x")
        for tenant in ("a", "b")
        for digest in ("1", "2")
        for side in ("image", "text")
    }
    assert len(made) == 8
    assert all(len(key.bytes) == 16 for key in made)


def test_what_is_shared_outlives_the_dataset_that_it_was_encoded_for(
    client: TestClient,
    encode: Encode,
    database: Database,
    settings: Settings,
    silent_sweep: Callable[[Settings], None],
) -> None:
    first, _, _ = encode(range(40))
    encode([*range(40), 1000])
    assert client.delete(f"/datasets/{first}").status_code == 204
    # Before the sweeper has looked, its features are not there although the index names them; afterwards neither.
    assert encode([*range(40), 2000])[1] == counts(1, 40)
    silent_sweep(settings)
    with database.transaction() as session:
        assert first not in session.scalars(select(EncodedPart.dataset_id)).all()
        assert session.scalar(select(func.count()).select_from(Feature)) == 2 * 42
    assert encode([*range(40), 3000])[1] == counts(1, 40)


def test_blobs_that_are_gone_are_encoded_again(client: TestClient, encode: Encode, blobs: Blobs) -> None:
    dataset, _, _ = encode(range(20))
    blobs.delete_prefix(f"datasets/{dataset}/encoded")
    assert encode(dataset)[1] == counts(20, 0)
    assert encode([*range(20)])[1] == counts(0, 20)


def test_what_was_used_longest_ago_goes_first_and_never_what_a_job_works_on(
    client: TestClient,
    encode: Encode,
    database: Database,
    settings: Settings,
    blobs: Blobs,
    silent_sweep: Callable[[Settings], None],
    work: Work,
) -> None:
    old, _, _ = encode(range(16))
    used, _, _ = encode(range(100, 116))
    with database.transaction() as session:
        (size,) = set(session.scalars(select(EncodedPart.size_bytes)))
    encode(used)
    silent_sweep(settings.model_copy(update={"ecif_feature_cache_bytes": 2 * size}))
    assert encode(used)[1] == encode(old)[1] == counts(0, 16)
    encode(used)
    silent_sweep(settings.model_copy(update={"ecif_feature_cache_bytes": 2 * size - 1}))
    assert encode(used)[1] == counts(0, 16)
    with database.transaction() as session:
        assert session.scalars(select(EncodedPart.dataset_id)).all() == [used]
        assert session.scalar(select(func.count()).select_from(Feature)) == 32
    none = settings.model_copy(update={"ecif_feature_cache_bytes": 0})
    job = client.post("/jobs", json={**SPEC, "dataset": used}).json()["id"]
    silent_sweep(none)
    assert any((settings.ecif_home / "blobs").rglob("encoded/*/*"))
    work()
    assert client.get(f"/jobs/{job}").json()["summary"]["encoding"] == counts(0, 16)
    silent_sweep(none)
    assert not any((settings.ecif_home / "blobs").rglob("encoded/*/*"))
    assert encode(old)[1] == counts(16, 0)


def test_many_workers_on_the_same_images(
    client: TestClient,
    upload: Upload,
    encode: Encode,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four jobs on four datasets that share most of their images, by two workers at once."""
    alone = threading.Lock()  # each worker has a process and a model of its own; these two share one
    for name in ("image_features", "text_features"):
        real = getattr(LoadedModel, name)

        def one_at_a_time(self: LoadedModel, inputs: Any, real: Any = real) -> Any:
            with alone:
                return real(self, inputs)

        monkeypatch.setattr(LoadedModel, name, one_at_a_time)
    ids = [upload(zip_of([*range(48), 1000 + which]))["id"] for which in range(4)]
    place = Workplace(settings, database, blobs)
    while work_once(place) is not None:
        pass
    jobs = [client.post("/jobs", json={**SPEC, "dataset": dataset}).json()["id"] for dataset in ids]

    def work_on() -> None:
        while work_once(place) is not None:
            pass

    threads = [threading.Thread(target=work_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [client.get(f"/jobs/{job}").json()["status"] for job in jobs] == ["succeeded"] * 4
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Feature)) == 2 * 52
    assert encode([*range(48), *(1000 + which for which in range(4))])[1] == counts(0, 52)
