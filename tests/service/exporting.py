"""Jobs that have something to export, made once for all tests that only read them."""

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient

from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import picture
from worker.attempts.attempt import Workplace, work_once

UIDS = [f"{7919 * (n + 1):016x}{n:016x}" for n in range(12)]

ROWS: list[dict[str, Any]] = [
    {
        "file_name": f"images/{n}.png",
        "caption": f"picture number {n}",
        "label": n % 3,
        "uid": UIDS[n].upper() if n % 2 else UIDS[n],
        "width": 2.5 if n else 3,
        "seen": n % 2 == 0,
        "hash": 2**64 - 1 - n,
        "rank": f"came as {n}",
        "tags": ["a", {"b": n}],
        "mixed": n if n % 2 else str(n),
        "huge": 10**30 + n,
        "sometimes": n if n > 5 else None,
    }
    for n in range(12)
]
ROWS[1]["caption"] = '=HYPERLINK("http://example.com";"x")'
ROWS[2]["caption"] = 'tab\there, "quotes",\nand a new line'
ROWS[3]["caption"] = "-3.5"
ROWS[4]["caption"] = "@SUM(A1) – naïve 🐈"
ROWS[6]["caption"] = '<script>alert(1)</script><img src=x onerror="alert(1)">'
ROWS[7]["caption"] = '" onmouseover="alert(1)" x="{{ 7 * 7 }}'
ROWS[8]["caption"] = "long " * 500 + "end"
ROWS[5]["+formula"] = "\r=1+1"


@dataclass(frozen=True)
class World:
    """An API over a database of its own, and a worker that is called by hand."""

    client: TestClient
    settings: Settings
    database: Database
    blobs: Blobs

    def work(self) -> None:
        place = Workplace(self.settings, self.database, self.blobs)
        while work_once(place) is not None:
            pass

    def upload(self, content: bytes, name: str = "data.zip") -> str:
        answer = self.client.post("/datasets", files={"file": (name, content)})
        assert answer.status_code == 201, answer.text
        self.work()
        dataset = self.client.get(f"/datasets/{answer.json()['id']}").json()
        assert dataset["status"] == "ready", dataset["error"]
        return str(dataset["id"])

    def job(self, **spec: Any) -> str:
        spec = {"task": "misalignment", "fit": None, "objective": {"batch_size": 4}, **spec}
        answer = self.client.post("/jobs", json=spec)
        assert answer.status_code == 202, answer.text
        self.work()
        job = self.client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        return str(job["id"])

    def export(self, job: str, form: str, keep: str = "all") -> bytes:
        answer = self.client.get(f"/jobs/{job}/export", params={"format": form, "keep": keep})
        assert answer.status_code == 200, answer.text
        return answer.content

    def results(self, job: str, **params: Any) -> list[dict[str, Any]]:
        return list(self.client.get(f"/jobs/{job}/results", params={"limit": 1000, **params}).json()["items"])


def images_zip(rows: list[dict[str, Any]] = ROWS) -> bytes:
    """The rows as a zip of images and a metadata.jsonl; each image is its own."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for n, row in enumerate(rows):
            archive.writestr(row["file_name"], picture(n))
        archive.writestr("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return out.getvalue()
