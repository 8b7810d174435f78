"""`ecif models` and `ecif datasets`: what jobs work with."""

from itertools import islice
from pathlib import Path
from typing import Any

import click

from ecif_client._sync.client import Client
from ecif_client.cli.parameters import command, created_options, metadata_option, page_of
from ecif_client.cli.showing import Shown
from ecif_client.errors import UsageError

_DATASETS = ("id", "name", "status", "format", "pair_count", "rejected_count", "created_at")
_MODELS = ("id", "name", "status", "architecture", "size_bytes", "created_at")
_PAIRS = ("key", "caption", "width", "height", "error")
_limit = click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="0 for all.")


@command("models")
@click.argument("model", required=False)
@click.option("--add", metavar="FILE|URI|JOB", help="Bring weights (safetensors), or the model that a removal edited.")
@click.option("--architecture", help="Of what is added; needed unless its file says it.")
@click.option("--name", help="Of what is added.")
@click.option("--idempotency-key", metavar="KEY", help="The same command under the same key adds one, for a day.")
@_limit
def models(
    client: Client,
    shown: Shown,
    model: str | None,
    add: str | None,
    architecture: str | None,
    name: str | None,
    idempotency_key: str | None,
    limit: int,
) -> None:
    """List, show or bring models.

    Without an argument: those that were brought, newest first. They are deleted by `ecif delete`.
    """
    if model and add:
        raise UsageError("MODEL shows a model and --add makes one: one at a time")
    if model:
        one = client.model(model)
        shown.answer(one, _in_words(one))
    elif add:
        about: dict[str, Any] = {"architecture": architecture, "name": name, "idempotency_key": idempotency_key}
        if "://" in add:
            made = client.refer_model(uri=add, **about)
        elif Path(add).exists():
            shown.say(f"uploading {add}")
            made = client.bring_model(add, **about)
        elif add.startswith("job_"):
            made = client.refer_model(job=add, **about)
        else:
            raise UsageError(f"{add}: no such file, and neither a URI nor the id of a job")
        shown.answer(made, made["id"])
    else:
        shown.rows(islice(client.models(limit=page_of(limit)), limit or None), _MODELS)


@command("datasets")
@click.argument("dataset", required=False)
@click.option("--rejected", is_flag=True, help="Of DATASET: the pairs that were turned away, and why.")
@click.option("--pairs", is_flag=True, help="Of DATASET: its pairs.")
@click.option("--status", type=click.Choice(("ingesting", "ready", "failed")), help="Only such datasets.")
@click.option("--name", help="Only datasets of exactly this name.")
@metadata_option("Only datasets with this pair; may be given again.")
@created_options
@_limit
def datasets(
    client: Client, shown: Shown, dataset: str | None, rejected: bool, pairs: bool, limit: int, **wanted: Any
) -> None:
    """List or show datasets.

    Without an argument: all of them, newest first. `ecif submit` makes them, `ecif delete` deletes them.
    """
    if dataset is None:
        if rejected or pairs:
            raise UsageError("--pairs and --rejected are of a DATASET: name one")
        shown.rows(islice(client.datasets(**wanted, limit=page_of(limit)), limit or None), _DATASETS)
    elif any(wanted.values()):
        raise UsageError("DATASET is one dataset, and the filters are of the list: leave one of both out")
    elif rejected or pairs:
        rows = client.pairs(dataset, rejected=True if rejected else None)
        shown.rows(islice(rows, limit or None), _PAIRS)
    else:
        one = client.dataset(dataset)
        shown.answer(one, _in_words(one))


def _in_words(thing: Any) -> str:
    """A dataset or a model: a field a line."""
    lines = [f"{thing['id']}  {thing['status']}"]
    if thing["error"]:
        lines.append(f"error: {thing['error']['message']}")
    shown = ("name", "source", "format", "architecture", "pair_count", "rejected_count", "size_bytes", "created_at")
    lines += [f"{name}: {thing[name]}" for name in shown if thing.get(name) is not None]
    lines += [f"warning: {warning}" for warning in thing.get("warnings", [])]
    return "\n".join(lines)
