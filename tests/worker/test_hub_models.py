"""Models named by a repository of the Hugging Face hub: from its cache here, since no hub can be reached."""

import json

import pytest
from safetensors.torch import save_file

from encoders import ModelSpec, load_model
from encoders.hub import from_hub
from encoders.tiny import TINY_CONFIG

REPOSITORY = "somebody/tiny-clip"
SPEC = {"task": "misalignment", "fit": None, "methods": ["clip_score"]}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Put a repository into the hub's cache, and cut the line."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    from_hub.cache_clear()
    commit = "0" * 40
    folder = tmp_path / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)

    def put(config, seed=7):
        model = load_model(ModelSpec("tiny", seed=seed))
        save_file(model.state_dict_with(model.full().parameters, "all"), snapshot / "open_clip_model.safetensors")
        (snapshot / "open_clip_config.json").write_text(config if isinstance(config, str) else json.dumps(config))

    yield put
    from_hub.cache_clear()


@pytest.fixture
def run(client, upload, image_zip, work):
    def run_job(name=REPOSITORY, **spec):
        body = {**SPEC, "dataset": upload(image_zip(4))["id"], "model": {"architecture": f"hf-hub:{name}"}, **spec}
        answer = client.post("/jobs", json=body)
        assert answer.status_code == 202, answer.text
        work()
        return client.get(f"/jobs/{answer.json()['id']}").json()

    return run_job


def test_configuration_weights_and_preprocessing_are_the_repository_s(hub, run):
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
            {"model_cfg": {**TINY_CONFIG, "init_logit_bias": -10}},
            "unsupported_architecture",
            "model.architecture.model_cfg.init_logit_bias",
        ),
    ],
)
def test_its_configuration_is_a_stranger_s(hub, run, config, code, param):
    hub(config)
    failed = run()
    assert (failed["status"], failed["error"]["code"], failed["error"]["param"]) == ("failed", code, param)


def test_without_a_network_the_job_says_so(hub, run):
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
def test_what_names_no_repository_is_a_422(client, upload, image_zip, problem_of, model):
    body = {**SPEC, "dataset": upload(image_zip(1))["id"], "model": model}
    assert problem_of(client.post("/jobs", json=body))["status"] == 422
