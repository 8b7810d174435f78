"""Models named by a repository of the Hugging Face hub: from its cache, or from a server that answers as it does."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from encoders import ModelSpec, load_model
from encoders import hub as hub_module
from encoders.architectures import TINY_CONFIG
from encoders.hub import HubLimits, from_hub
from encoders.model_spec import ModelRefused
from service.app import create_app
from store import api_keys
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import ImageZip, ProblemOf, Refusing, Upload, Work
from worker.attempts.attempt import Workplace, work_once

Run = Callable[..., dict[str, Any]]
Requests = list[tuple[str, str, str | None]]
Hold = Callable[..., None]

REPOSITORY = "somebody/tiny-clip"
SPEC = {"task": "misalignment", "fit": None, "methods": ["clip_score"]}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """Put a repository into the hub's cache, and cut the line."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub_module._seen.clear()
    commit = "0" * 40
    folder = tmp_path / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)

    def put(config: Any, seed: int = 7) -> None:
        model = load_model(ModelSpec("tiny", seed=seed))
        save_file(model.state_dict_with(model.full().parameters, "all"), snapshot / "open_clip_model.safetensors")
        (snapshot / "open_clip_config.json").write_text(config if isinstance(config, str) else json.dumps(config))

    yield put
    hub_module._seen.clear()


@pytest.fixture
def run(client: TestClient, upload: Upload, image_zip: ImageZip, work: Work) -> Run:
    def run_job(name: str = REPOSITORY, **spec: Any) -> dict[str, Any]:
        body = {**SPEC, "dataset": upload(image_zip(4))["id"], "model": {"architecture": f"hf-hub:{name}"}, **spec}
        answer = client.post("/jobs", json=body)
        assert answer.status_code == 202, answer.text
        work()
        return client.get(f"/jobs/{answer.json()['id']}").json()

    return run_job


def test_configuration_weights_and_preprocessing_are_the_repository_s(hub: Hold, run: Run) -> None:
    hub({"model_cfg": TINY_CONFIG, "preprocess_cfg": {"mean": [0.5] * 3}, "version": "3"})
    job = run(objective={"seed": 3})
    assert job["status"] == "succeeded", job["error"]
    assert not any("random" in warning for warning in job["summary"]["warnings"])
    config = {"model_cfg": TINY_CONFIG, "preprocess_cfg": {"mean": [0.5] * 3}}
    assert job["summary"]["model"]["digest"] == load_model(ModelSpec(config, seed=7)).digest


@pytest.mark.parametrize(
    ("config", "code", "param"),
    [
        ("{", "invalid_model_config", "model.architecture"),
        ("[]", "invalid_model_config", "model.architecture"),
        ({"model_cfg": {**TINY_CONFIG, "colour": 1}}, "invalid_model_config", "model.architecture.model_cfg.colour"),
        (
            {"model_cfg": {**TINY_CONFIG, "multimodal_cfg": {}}},
            "unsupported_architecture",
            "model.architecture.model_cfg.multimodal_cfg",
        ),
    ],
)
def test_its_configuration_is_a_stranger_s(
    hub: Hold, run: Run, config: str | dict[str, Any], code: str, param: str
) -> None:
    hub(config)
    failed = run()
    assert (failed["status"], failed["error"]["code"], failed["error"]["param"]) == ("failed", code, param)


def test_without_a_network_the_job_says_so(hub: Hold, run: Run) -> None:
    failed = run("somebody/absent")
    assert (failed["error"]["code"], failed["error"]["param"]) == ("weights_unavailable", "model.architecture")
    assert "network" in failed["error"]["message"]


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "hf-hub:"},
        {"architecture": "hf-hub:/etc"},
        {"architecture": "hf-hub:../x"},
        {"architecture": "hf-hub:a/b/c"},
        {"architecture": "local-dir:/etc"},
        {"architecture": f"hf-hub:{REPOSITORY}", "pretrained": "openai"},
    ],
)
def test_what_names_no_repository_is_a_422(refusing: Refusing, problem_of: ProblemOf, model: dict[str, str]) -> None:
    body = {**SPEC, "dataset": refusing.images, "model": model}
    assert problem_of(refusing.client.post("/jobs", json=body))["status"] == 422


class Hub(BaseHTTPRequestHandler):
    """Two requests of the hub's: what a repository holds, and one of its files."""

    def __init__(self, files: dict[str, bytes], requests: Requests, *arguments: Any) -> None:
        self.files, self.requests = files, requests
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.requests.append((self.command, self.path, self.headers.get("Authorization")))
        if self.path.startswith("/api/models/"):
            listed = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
            about = {"_id": "1", "id": REPOSITORY, "modelId": REPOSITORY, "sha": "0" * 40, "siblings": listed}
            self.answer(json.dumps(about).encode(), {"Content-Type": "application/json"})
        else:
            name = self.path.partition("?")[0].rpartition("/")[2]
            self.answer(self.files[name], {"X-Repo-Commit": "0" * 40, "ETag": f'"{len(self.path)}-{name}"'})

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Requests]:
    """A hub that holds one model under every name, and a token in the worker's environment; its requests."""
    model = load_model(ModelSpec("tiny", seed=7))
    save_file(model.state_dict_with(model.full().parameters, "all"), tmp_path / "weights")
    files = {
        "open_clip_config.json": json.dumps({"model_cfg": TINY_CONFIG}).encode(),
        "open_clip_model.safetensors": (tmp_path / "weights").read_bytes(),
    }
    requests: Requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, files, requests))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub_module._seen.clear()
    yield requests
    hub_module._seen.clear()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The API lets these through: what the worker makes of them is tested here."""
    lenient = settings.model_copy(update={"ecif_hub_repositories": "somebody a-stranger"})
    with TestClient(create_app(lenient), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def keyed(client: TestClient, database: Database, online: Requests) -> None:
    """There is an API key, and the client shows it."""
    with database.transaction() as session:
        client.headers["Authorization"] = f"Bearer {api_keys.create(session, 'default', None)[1]}"


@pytest.fixture
def run_with(
    client: TestClient, settings: Settings, database: Database, blobs: Blobs, upload: Upload, image_zip: ImageZip
) -> Run:
    """Do a job under other settings."""

    def run_job(architecture: Any, **changed: Any) -> dict[str, Any]:
        body = {**SPEC, "dataset": upload(image_zip(4))["id"], "model": {"architecture": architecture}}
        answer = client.post("/jobs", json=body)
        assert answer.status_code == 202, answer.text
        place = Workplace(settings.model_copy(update=changed), database, blobs)
        while work_once(place) is not None:
            pass
        return client.get(f"/jobs/{answer.json()['id']}").json()

    return run_job


def tokens(requests: Requests) -> set[str | None]:
    return {authorization for _, _, authorization in requests}


def test_without_keys_any_repository_is_fetched_with_the_token_of_the_machine_s_user(
    online: Requests, run_with: Run
) -> None:
    job = run_with(f"hf-hub:{REPOSITORY}")
    assert job["status"] == "succeeded", job["error"]
    assert tokens(online) == {"Bearer hf_secret"}


def test_tenants_fetch_only_what_is_allowed_and_without_a_token(keyed: None, online: Requests, run_with: Run) -> None:
    for allowed in ("", "somebody-else somebody/other"):
        failed = run_with(f"hf-hub:{REPOSITORY}", ecif_hub_repositories=allowed)
        assert (failed["error"]["code"], failed["error"]["param"]) == ("repository_not_allowed", "model.architecture")
        assert "ECIF_HUB_REPOSITORIES" in failed["error"]["message"]
    assert online == []
    job = run_with(f"hf-hub:{REPOSITORY}", ecif_hub_repositories="somebody")
    assert job["status"] == "succeeded", job["error"]
    assert tokens(online) == {None}


def test_what_is_not_allowed_is_refused_at_the_door(
    keyed: None,
    client: TestClient,
    online: Requests,
    settings: Settings,
    upload: Upload,
    image_zip: ImageZip,
) -> None:
    text = {"hf_model_name": "a-stranger/tower", "hf_tokenizer_name": "a-stranger/tower"}
    config = {"embed_dim": 16, "vision_cfg": TINY_CONFIG["vision_cfg"], "text_cfg": text}
    body = {**SPEC, "dataset": upload(image_zip(4))["id"]}
    with TestClient(create_app(settings), headers=dict(client.headers)) as strict:
        for architecture, field in ((f"hf-hub:{REPOSITORY}", ()), (config, ("text_cfg", "hf_model_name"))):
            answer = strict.post("/jobs", json={**body, "model": {"architecture": architecture}})
            assert (answer.status_code, answer.json()["code"]) == (422, "repository_not_allowed")
            assert answer.json()["errors"][0]["loc"] == ["body", "model", "architecture", *field]
    assert online == []


def test_a_setting_lets_tenants_use_the_token(keyed: None, online: Requests, run_with: Run) -> None:
    job = run_with(f"hf-hub:{REPOSITORY}", ecif_hub_repositories=REPOSITORY, ecif_hub_token=True)
    assert job["status"] == "succeeded", job["error"]
    assert tokens(online) == {"Bearer hf_secret"}


def test_a_text_tower_in_a_configuration_is_fetched_only_from_what_is_allowed(
    keyed: None, online: Requests, run_with: Run
) -> None:
    text = {"hf_model_name": "a-stranger/tower", "hf_tokenizer_name": "a-stranger/tower"}
    config = {"embed_dim": 16, "vision_cfg": TINY_CONFIG["vision_cfg"], "text_cfg": text}
    failed = run_with(config)
    assert failed["error"]["code"] == "repository_not_allowed"
    assert failed["error"]["param"] == "model.architecture.text_cfg.hf_model_name"
    assert online == []


def test_a_model_larger_than_the_bound_is_not_downloaded(online: Requests, run_with: Run) -> None:
    failed = run_with(f"hf-hub:{REPOSITORY}", ecif_hub_model_bytes=1000)
    assert (failed["error"]["code"], failed["error"]["param"]) == ("model_too_large", "model.architecture")
    assert "1000 is the most (ECIF_HUB_MODEL_BYTES)" in failed["error"]["message"]
    assert not [path for _, path, _ in online if path.endswith(".safetensors")]


def sizes(cache: Path) -> dict[str, int]:
    return {
        folder.name: sum(file.stat().st_size for file in (folder / "blobs").glob("*"))
        for folder in cache.glob("models--*")
    }


def test_beyond_the_bound_what_was_used_longest_ago_goes(online: Requests, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "models--of--the-user" / "blobs").mkdir(parents=True)  # not ours, so neither counted nor deleted
    (cache / "models--of--the-user" / "blobs" / "x").write_bytes(bytes(1 << 20))
    from_hub("a/first", HubLimits(1 << 30, 1 << 40))
    one = sizes(cache)["models--a--first"]
    limits = HubLimits(1 << 30, 2 * one + 100)
    from_hub("a/second", limits)
    for age, name in ((5000, "first"), (9000, "second")):  # seconds since it was used
        used = cache / f"models--a--{name}" / hub_module._USED
        os.utime(used, (used.stat().st_atime - age, used.stat().st_mtime - age))
    from_hub("a/third", limits)
    assert sizes(cache).keys() == {"models--of--the-user", "models--a--first", "models--a--third"}
    _, checkpoint = from_hub("a/second", limits)  # again, in the place of the first
    assert sizes(cache).keys() == {"models--of--the-user", "models--a--second", "models--a--third"}
    with checkpoint.local_path() as path:
        assert path.is_file()
    with pytest.raises(ModelRefused, match="no room"):  # both may still be read
        from_hub("a/fourth", limits)
    assert sum(sizes(cache).values()) - (1 << 20) <= limits.cache_bytes
