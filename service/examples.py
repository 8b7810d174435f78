"""An example of each thing that is sent or answered, by the name of its schema. A test holds each to its schema."""

from typing import Any, Final

_DATASET, _CLEAN = "ds_4m2k0v6q8w1x3z5b7n9p0r2t4y", "ds_9c1e3g5j7m0q2s4v6x8z1b3d5f"
_JOB, _MODEL = "job_7h2k4n6q8t0w1y3a5c7e9g1j3m", "model_2b4d6f8h0k1m3p5r7t9w2y4a6c"
_UPLOAD, _DELIVERY = "up_5e7g9j1m2q4s6v8x0z3b5d7f9h", "msg_3f5h7k9n1q2t4w6y8a0c3e5g7j"
_NOON = "2026-11-24T12:00:00Z"

PATHS: Final = {
    "dataset_id": _DATASET,
    "job_id": _JOB,
    "model_id": _MODEL,
    "upload_id": _UPLOAD,
    "delivery_id": _DELIVERY,
    "key": "images/0001.jpg",
    "code": "unknown_dataset",
}
"""Of the parameters of paths."""

_SPEC: dict[str, Any] = {
    "task": "misalignment",
    "dataset": _DATASET,
    "validation": {"dataset": _CLEAN},
    "model": {"architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
    "objective": {
        "scope": "heads",
        "lora": None,
        "batch_size": 128,
        "partitions": 1,
        "seed": 0,
        "l2": 0.3,
        "temperature": None,
        "mask_duplicates": True,
        "train_temperature": False,
        "loss": None,
        "logit_bias": None,
    },
    "fit": {"epochs": 200, "learning_rate": "auto"},
    "influence": {"negative": "exact", "damping": "auto", "curvature": "gauss_newton"},
    "methods": ["ecif", "clip_score"],
    "flag": {"false_discovery_rate": 0.05, "confidence": 0.9, "by": None},
    "queries": None,
    "remove": None,
    "verify": False,
    "notify": None,
}
_DISTRIBUTION = {
    "mean": 0.31,
    "standard_deviation": 0.07,
    "quantiles": {"0": 0.02, "0.5": 0.32, "1": 0.47},
    "histogram": {"edges": [0.02, 0.245, 0.47], "counts": [212, 788]},
}
_SUMMARY: dict[str, Any] = {
    "counts": {
        "pairs": 1000,
        "rejected": 3,
        "scored": 1000,
        "held_out": 0,
        "validation": 400,
        "calibration": 400,
        "batches": 11,
        "flagged": 41,
        "truncated_captions": 0,
    },
    "ranked_by": "suspicion: clip_score, as given (61%); contrast_loss, turned (28%); lemon, as given (11%)",
    "flagging": {
        "method": "conformal",
        "false_discovery_rate": 0.05,
        "confidence": 0.9,
        "by": None,
        "calibration_pairs": 400,
        "estimated_noise_rate": 0.062,
    },
    "suspicion": {
        "columns": ["clip_score, as given", "contrast_loss, turned", "lemon, as given"],
        "weights": {"clip_score, as given": 1.4, "contrast_loss, turned": 0.64, "lemon, as given": 0.25},
        "injected_auroc": 0.971,
        "injected": {"any": 100, "near": 100},
        "reason": None,
    },
    "stability": {
        "suspicion": {
            "over": "exchanges",
            "repeats": 6,
            "pairs": 1080,
            "rank_correlation": 0.957,
            "top_overlap": {"0.01": 0.61, "0.05": 0.85, "0.1": 0.88},
            "standard_error": 0.11,
        }
    },
    "scores": {"clip_score": _DISTRIBUTION},
    "model": {"digest": "sha256:1f0c", "encoder": {"open_clip": "3.2.0", "torch": "2.9.0"}},
    "loss": {"name": "softmax", "logit_bias": None},
    "encoding": {"images": {"encoded": 1400, "reused": 0}, "captions": {"encoded": 1400, "reused": 0}},
    "fit": {
        "epochs": 57,
        "objective": 1834.2,
        "gradient_norm": 0.004,
        "decrement_bound": 0.002,
        "stationary": True,
        "adam_precision": "float32",
        "temperature": 0.01,
    },
    "curvature": None,
    "self_influence": None,
    "removal": None,
    "warnings": [],
    "phases": [
        {
            "phase": "encode",
            "version": 1,
            "shards": 2,
            "seconds": 12.4,
            "pairs": 1400,
            "pairs_per_second": 112.9,
            "memory_bytes": 1_900_000_000,
            "device_memory_bytes": None,
        }
    ],
}
_JOB_OUT: dict[str, Any] = {
    "id": _JOB,
    "name": "nightly",
    "metadata": {"run": "17"},
    "task": "misalignment",
    "status": "succeeded",
    "phase": None,
    "progress": {"done": 1000, "total": 1000, "unit": "pairs"},
    "spec": _SPEC,
    "dataset_digest": "sha256:9b2e",
    "created_at": _NOON,
    "started_at": _NOON,
    "finished_at": "2026-11-24T12:03:20Z",
    "error": None,
    "summary": _SUMMARY,
}
_DATASET_OUT: dict[str, Any] = {
    "id": _DATASET,
    "name": "train.zip",
    "metadata": {},
    "source": None,
    "digest": "sha256:9b2e",
    "format": "folder",
    "status": "ready",
    "pair_count": 1000,
    "rejected_count": 3,
    "warnings": [],
    "summary": {
        "rejected": {"unreadable_image": 3},
        "duplicates": {"image": {"groups": 2, "pairs": 4}, "caption": {"groups": 9, "pairs": 31}},
        "captions": {
            "count": 1000,
            "distinct": 978,
            "mean_characters": 41.3,
            "longest_characters": 212,
            "further": 0,
        },
        "labels": None,
        "repeated_keys": 0,
        "unreferenced_images": 0,
        "missing_shards": [],
        "left_out": {},
    },
    "error": None,
    "created_at": _NOON,
}
_PAIR = {
    "key": "images/0001.jpg",
    "caption": "a dog on a beach",
    "width": 640,
    "height": 480,
    "extra": {"label": "dog"},
    "error": None,
    "duplicate_of": None,
}
_MODEL_OUT = {
    "id": _MODEL,
    "name": "mine.safetensors",
    "source": None,
    "architecture": "ViT-B-32",
    "digest": "sha256:77aa",
    "status": "ready",
    "size_bytes": 605_143_316,
    "error": None,
    "created_at": _NOON,
}
_RESULT: dict[str, Any] = {
    "rank": 1,
    "query": None,
    "key": "images/0417.jpg",
    "caption": "a red car",
    "image_url": f"/datasets/{_DATASET}/pairs/images%2F0417.jpg/image",
    "influence": -0.0021,
    "positive_influence": -0.0019,
    "negative_influence": -0.0002,
    "neighbour_influence": None,
    "relative_influence": None,
    "self_influence": 3.1,
    "clip_score": 0.04,
    "pair_loss": None,
    "tracin": None,
    "trak": None,
    "ekfac_if": None,
    "magic": None,
    "lemon": None,
    "contrast_loss": None,
    "margin": None,
    "leave_one_out": None,
    "suspicion": 6.2,
    "why": [{"column": "clip_score, as given", "contribution": 4.1}],
    "better_caption": "images/0093.jpg",
    "exchanged_with": None,
    "p_value": 0.0025,
    "q_value": 0.012,
    "flagged": True,
}
_DELIVERY_OUT = {
    "id": _DELIVERY,
    "event": "job.succeeded",
    "url": "https://example.org/hooks/ecif",
    "status": "delivered",
    "next_attempt_at": None,
    "attempts": [{"at": _NOON, "seconds": 0.21, "status_code": 204, "error": None}],
    "created_at": _NOON,
}
_PROBLEM = {
    "type": "/problems/unknown_dataset",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": f"there is no dataset {_DATASET!r}",
    "code": "unknown_dataset",
    "errors": [{"loc": ["body", "dataset"], "msg": f"there is no dataset {_DATASET!r}"}],
}
_EXPLANATION = {
    "code": "unknown_dataset",
    "meaning": "The specification names a dataset that is not there.",
    "cause": "It was deleted, its id is misspelt, or it belongs to another tenant.",
    "remedy": "GET /datasets lists those that there are.",
}


def _page(item: dict[str, Any]) -> dict[str, Any]:
    return {"items": [item], "next_cursor": None, "total": 1}


_MARK: dict[str, Any] = {
    "key": "images/0001.jpg",
    "mark": "relabel",
    "caption": "a handwritten seven",
    "sample": False,
    "by": "Ada",
    "at": _NOON,
}
_SAMPLED: dict[str, Any] = {
    "place": 1,
    "key": "images/0001.jpg",
    "caption": "a handwritten one",
    "image_url": f"/datasets/{_DATASET}/pairs/images%2F0001.jpg/image",
    "mark": "keep",
    "new_caption": None,
}
OF: Final[dict[str, Any]] = {
    "DatasetReference": {"uri": "s3://bucket/train/{00000..00099}.tar", "name": "train", "metadata": {"run": "17"}},
    "ModelReference": {"uri": "https://example.org/mine.safetensors", "architecture": "ViT-B-32"},
    "JobSubmission": {
        "task": "misalignment",
        "dataset": _DATASET,
        "validation": {"dataset": _CLEAN},
        "model": "ViT-B-32",
        "name": "nightly",
        "metadata": {"run": "17"},
    },
    "JobOut": _JOB_OUT,
    "Page_JobOut_": _page(_JOB_OUT),
    "DatasetOut": _DATASET_OUT,
    "Page_DatasetOut_": _page(_DATASET_OUT),
    "Page_PairOut_": _page(_PAIR),
    "ModelOut": _MODEL_OUT,
    "Page_ModelOut_": _page(_MODEL_OUT),
    "ResultPage": _page(_RESULT),
    "DiffPage": {
        "items": [
            {
                "verdict": "flagged",
                "key": "000000017",
                "caption": "a photo of a dog",
                "rank": 3,
                "suspicion": 5.1,
                "rank_before": 480,
                "suspicion_before": -0.7,
            }
        ],
        "next_cursor": None,
        "total": None,
    },
    "MarkIn": {"mark": "relabel", "caption": "a handwritten seven", "sample": False},
    "MarkOut": _MARK,
    "Page_MarkOut_": _page(_MARK),
    "Page_SampledPair_": _page(_SAMPLED),
    "MapOut": {
        "projection": "principal components of the embeddings of image and caption, side by side",
        "explained": 0.31,
        "pairs": 2,
        "rank": [2, 1],
        "x": [-1.0, 0.4],
        "y": [0.2, -0.3],
        "suspicion": [-0.7, 5.1],
        "flagged": [False, True],
    },
    "DeliveryOut": _DELIVERY_OUT,
    "Page_DeliveryOut_": _page(_DELIVERY_OUT),
    "WebhookSecretOut": {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "previous": None},
    "EstimateOut": {
        "spec": _SPEC,
        "pairs": 1400,
        "results": 1000,
        "seconds": 200.4,
        "memory_bytes": 1_900_000_000,
        "device_memory_bytes": None,
        "phases": [
            {
                "phase": "encode",
                "unit": "pairs",
                "shards": 2,
                "seconds": 12.4,
                "memory_bytes": 1_900_000_000,
                "device_memory_bytes": None,
                "based_on": 3,
                "reason": None,
            }
        ],
    },
    "Liveness": {"status": "alive"},
    "Readiness": {"status": "ready", "postgres": "ok", "redis": "ok"},
    "Problem": _PROBLEM,
    "Explanation": _EXPLANATION,
    "Explanations": {"items": [_EXPLANATION]},
}
