"""`ecif submit`: a job on a file, a folder, a URI, two files of embeddings, or a dataset that is there."""

import json
from pathlib import Path
from typing import Any

import click

from ecif_client._sync.client import Client
from ecif_client.answers import Dataset, Estimate, Spec
from ecif_client.cli.jobs import follow
from ecif_client.cli.parameters import command, metadata_option, number_of
from ecif_client.cli.showing import Shown
from ecif_client.errors import UsageError
from ecif_client.idempotency import part_key

TASKS = ("misalignment", "valuation", "traceback", "removal")
_MEMORY = ("memory_bytes", "device_memory_bytes")


@command("submit")
@click.argument("data", required=False)
@click.option(
    "--embeddings",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="IMAGE.npy TEXT.npy",
    help="In place of DATA: two matrices, a row for each pair.",
)
@click.option("--validation", metavar="VAL", help="Pairs that you trust: as DATA, or a share of it such as 10%.")
@click.option("--task", type=click.Choice(TASKS), help="What to find out.  [default: misalignment]")
@click.option(
    "--model",
    metavar="ARCHITECTURE[:PRETRAINED]|MODEL",
    help="An open_clip model, hf-hub:ORGANISATION/REPOSITORY, or the id of one of `ecif models`.",
)
@click.option("--queries", metavar="QUERIES", help="Of a traceback: the images to explain, as DATA.")
@click.option("--remove-keys", metavar="KEY,…|@FILE", help="Of a removal: the pairs that leave; a file has one a line.")
@click.option("--remove-flagged", metavar="JOB", help="Of a removal: the pairs that an earlier job flagged leave.")
@click.option("--verify", is_flag=True, help="Of a removal: refit without them too.")
@click.option("--spec", default="{}", metavar="JSON|@FILE", help="More of the specification.")
@click.option("--gate", metavar="JSON|@FILE", help="What the data must be like; `ecif gate` says whether they are.")
@click.option("--notify", metavar="URL", help="Is sent a signed POST when the job has ended.")
@click.option("--name", help="Of the job, and of the dataset that DATA becomes.")
@metadata_option("A pair of text that the job carries; may be given again.")
@click.option("--format", "format_", metavar="FORMAT", help="Of DATA; found out otherwise.")
@click.option("--caption-template", metavar="TEXT", help="Of images in folders named by their class: 'a {label}'.")
@click.option("--idempotency-key", metavar="KEY", help="The same command under the same key makes one job, for a day.")
@click.option("--dry-run", is_flag=True, help="Only say what it would take; DATA and VAL are ids.")
@click.option("--wait", is_flag=True, help="Until the job has ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="To wait at most.")
def submit(client: Client, shown: Shown, **options: Any) -> int:  # fmt: skip
    """Submit a job.

    DATA is a file, a folder, a URI (https, s3, gs) or the id of a dataset. A file that is here already is not sent
    again, and an upload that was stopped goes on.
    """
    spec = _specification(options)
    uploading = _Uploading(client, shown, options["idempotency_key"], options["dry_run"])
    validation = options["validation"]
    if validation is not None and (share := _share(validation)) is not None:
        _put(spec, "--validation", "validation", {"fraction": share})
    elif validation is not None:
        _put(spec, "--validation", "validation", {"dataset": uploading.dataset("validation", validation)})
    if options["queries"] is not None:
        queries = spec.setdefault("queries", {})
        _put(queries, "--queries", "dataset", uploading.dataset("queries", options["queries"]))
    about = {"name": options["name"], "format": options["format_"], "caption_template": options["caption_template"]}
    if options["embeddings"]:
        _put(spec, "--embeddings", "dataset", uploading.embeddings(options["embeddings"], about))
    elif options["data"] is not None:
        _put(spec, "DATA", "dataset", uploading.dataset("dataset", options["data"], **about))
    if options["dry_run"]:
        _show_estimate(shown, client.estimate(spec))
        return 0
    labels = {"name": options["name"], "metadata": options["metadata"]}
    job = client.submit(spec, **labels, idempotency_key=options["idempotency_key"])
    shown.say(f"job {job['id']}")
    if options["wait"]:
        return follow(client, shown, job["id"], options["timeout"])
    shown.answer(job, job["id"])
    return 0


def _specification(options: dict[str, Any]) -> Spec:
    """What can be said before anything is sent; so can what is missing."""
    spec = _read_object("--spec", options["spec"])
    if options["task"] is not None:
        _put(spec, "--task", "task", options["task"])
    task = spec.setdefault("task", "misalignment")
    if options["model"] is not None:
        _put(spec, "--model", "model", _model(options["model"]))
    if options["gate"] is not None:
        _put(spec, "--gate", "gate", _read_object("--gate", options["gate"]))
    if options["notify"] is not None:
        _put(spec, "--notify", "notify", {"url": options["notify"]})
    if options["remove_keys"] is not None and options["remove_flagged"] is not None:
        raise UsageError("--remove-keys and --remove-flagged say each which pairs leave: name one")
    if options["remove_keys"] is not None:
        _put(spec, "--remove-keys", "remove", {"keys": _keys(options["remove_keys"])})
    if options["remove_flagged"] is not None:
        _put(spec, "--remove-flagged", "remove", {"job": options["remove_flagged"], "flagged": True})
    if options["verify"]:
        _put(spec, "--verify", "verify", True)
    if options["data"] is not None and options["embeddings"]:
        raise UsageError("DATA and --embeddings say each what the job is on: name one")
    if options["data"] is None and not options["embeddings"] and "dataset" not in spec:
        raise UsageError("name DATA: a file, a folder, a URI or the id of a dataset (ecif submit --help)")
    if task == "traceback" and options["queries"] is None and "queries" not in spec:
        raise UsageError("a traceback needs --queries: the images to explain")
    if task == "removal" and "remove" not in spec:
        raise UsageError("a removal needs --remove-keys or --remove-flagged: which pairs leave")
    if task == "valuation" and options["validation"] is None and "validation" not in spec:
        raise UsageError("a valuation needs --validation: the pairs whose loss counts, or a share such as 10%")
    return spec


def _put(spec: Spec, option: str, field: str, value: Any) -> None:
    if spec.get(field, value) != value:
        raise UsageError(f"{option} and --spec say different things of {field!r}: say it once")
    spec[field] = value


def _read_object(option: str, text: str) -> Spec:
    try:
        spec = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise UsageError(f"{option}: {text[1:]}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{option} is no JSON: {error}") from None
    if not isinstance(spec, dict):
        raise UsageError(f"{option} must be a JSON object")
    return spec


def _model(text: str) -> Spec:
    if text.startswith("model_"):
        return {"id": text}
    if text.startswith("hf-hub:"):
        return {"architecture": text}
    architecture, _, pretrained = text.partition(":")
    return {"architecture": architecture, "pretrained": pretrained or None}


def _keys(text: str) -> list[str]:
    if not text.startswith("@"):
        return [key for key in text.split(",") if key]
    try:
        return [key for key in Path(text[1:]).read_text("utf-8").splitlines() if key]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--remove-keys: {text[1:]}: {error}") from None


def _share(text: str) -> float | None:
    """A share as a number; nothing where a dataset is named.

    Raises:
        UsageError: it is meant as a share, and is none.
    """
    if not text.endswith("%") or Path(text).exists():
        return None
    number = number_of(text[:-1])
    if number is None or not 0 < number < 100:
        raise UsageError(f"--validation: {text!r} is no share between 0% and 100%, such as 10%")
    return number / 100


class _Uploading:
    """Turns what the command line names into datasets."""

    def __init__(self, client: Client, shown: Shown, key: str | None, only_by_id: bool) -> None:
        self._client = client
        self._shown = shown
        self._key = key
        self._only_by_id = only_by_id

    def dataset(self, part: str, named: str, **about: Any) -> str:
        """The id of what `named` names."""
        path = Path(named)
        is_here = "://" not in named and path.exists()
        if self._only_by_id and ("://" in named or is_here):
            raise UsageError(f"{named}: a dry run uploads and fetches nothing; name a dataset by its id")
        key = part_key(self._key, part)
        if "://" in named:
            return self._said(self._client.refer(named, **about, idempotency_key=key))
        if is_here:
            with self._shown.transferring(f"uploading {named}") as seen:
                dataset = self._client.upload(path, **about, idempotency_key=key, seen=seen)
            return self._said(dataset)
        if named.startswith("ds_"):
            return named
        raise UsageError(f"{named}: no such file or folder, and neither a URI nor the id of a dataset")

    def embeddings(self, matrices: tuple[Path, Path], about: dict[str, Any]) -> str:
        """The id of the dataset that two matrices make, of images and of texts."""
        image, text = matrices
        if self._only_by_id:
            raise UsageError("--embeddings: a dry run uploads nothing; name a dataset by its id")
        for path in matrices:
            if path.suffix != ".npy":
                raise UsageError(f"{path} is no .npy file; what holds both matrices is DATA")
        files = {"image.npy": image, "text.npy": text}
        name, key = about["name"] or image.resolve().parent.name, part_key(self._key, "dataset")
        with self._shown.transferring(f"uploading {image} and {text}") as seen:
            return self._said(self._client.upload_files(files, name=name, idempotency_key=key, seen=seen))

    def _said(self, dataset: Dataset) -> str:
        self._shown.say(f"dataset {dataset['id']}")
        return dataset["id"]


def _show_estimate(shown: Shown, estimate: Estimate) -> None:
    """A row for each phase, and one for all."""
    if shown.as_json:
        shown.answer(estimate, "")
        return
    rows = []
    for phase in estimate["phases"]:
        based_on = f"{phase['based_on']} finished" if phase["based_on"] else phase["reason"]
        rows.append({"phase": phase["phase"], "shards": phase["shards"], **_taken(phase), "based on": based_on})
    rows.append({"phase": "all", **_taken(estimate)})
    shown.rows(rows, ("phase", "shards", "seconds", "memory", "GPU memory", "based on"), otherwise="table")


def _taken(one: Any) -> dict[str, str]:
    """Seconds and both kinds of memory, for people; a dash where one is not known."""
    seconds = "–" if one["seconds"] is None else f"{one['seconds']:,.1f}"
    memory = ("–" if one[kind] is None else f"{one[kind] / 2**20:,.0f} MiB" for kind in _MEMORY)
    return {"seconds": seconds, **dict(zip(("memory", "GPU memory"), memory, strict=True))}
