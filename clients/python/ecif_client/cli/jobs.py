"""`ecif list`, `status`, `watch`, `cancel` and `delete`."""

from itertools import islice
from typing import Any

import click

from ecif_client._sync.client import Client
from ecif_client.answers import Job
from ecif_client.cli.parameters import command, created_options, metadata_option, page_of
from ecif_client.cli.showing import Shown
from ecif_client.errors import JobFailedError, UsageError

STATUSES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
_COLUMNS = ("id", "task", "status", "phase", "dataset", "scored", "flagged", "created_at", "name")


@command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only such jobs.")
@click.option("--task", help="Only jobs of this task.")
@click.option("--dataset", metavar="ID", help="Only jobs on this dataset.")
@click.option("--name", help="Only jobs of exactly this name.")
@metadata_option("Only jobs with this pair; may be given again.")
@created_options
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="0 for all.")
def list_jobs(client: Client, shown: Shown, limit: int, **wanted: Any) -> None:
    """List jobs, newest first."""
    jobs = islice(client.jobs(**wanted, limit=page_of(limit)), limit or None)
    shown.rows((job if shown.lists_json else _line(job) for job in jobs), _COLUMNS)


def _line(job: Job) -> dict[str, Any]:
    counts = (job["summary"] or {}).get("counts", {})
    of_job = {name: job[name] for name in ("id", "name", "task", "status", "phase", "created_at")}
    about = {"dataset": job["spec"].get("dataset"), "scored": counts.get("scored"), "flagged": counts.get("flagged")}
    return {**of_job, **about}


@command("status")
@click.argument("job")
@click.option("--wait", is_flag=True, help="Until it has ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="To wait at most.")
def status(client: Client, shown: Shown, job: str, wait: bool, timeout: float | None) -> int:
    """Show a job. The exit code is 3 if it failed or was cancelled."""
    if wait:
        return follow(client, shown, job, timeout)
    state = client.job(job)
    shown.answer(state, in_words(state))
    return JobFailedError.exit_code if state["status"] in ("failed", "cancelled") else 0


@command("watch")
@click.argument("job")
@click.option("--timeout", type=float, metavar="SECONDS", help="To watch at most.")
def watch(client: Client, shown: Shown, job: str, timeout: float | None) -> int:
    """Follow a job until it has ended."""
    return follow(client, shown, job, timeout)


@command("cancel")
@click.argument("job")
def cancel(client: Client, shown: Shown, job: str) -> None:
    """Ask a job to end. Asking again changes nothing."""
    state = client.cancel(job)
    shown.answer(state, in_words(state))


@command("delete")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
def delete(client: Client, shown: Shown, ids: tuple[str, ...]) -> None:
    """Delete jobs, datasets or models.

    By their ids; jobs with their results. There is no way back.
    """
    noun_of = {"job": client.delete_job, "ds": client.delete_dataset, "model": client.delete_model}
    for id_ in ids:
        if id_.partition("_")[0] not in noun_of:
            raise UsageError(f"{id_!r} is no id of a job, a dataset or a model")
    for id_ in ids:
        noun_of[id_.partition("_")[0]](id_)
        shown.answer({"deleted": id_}, f"deleted {id_}")


def follow(client: Client, shown: Shown, job_id: str, timeout: float | None) -> int:
    """Show a job until it has ended, and then how."""
    with shown.following() as seen:
        job = client.wait(job_id, seconds=timeout, seen=seen)
    shown.answer(job, in_words(job))
    return 0


def in_words(job: Job) -> str:
    """A job in a few lines."""
    lines = [f"{job['id']}  {job['task']}  {job['status']}" + (f"  {job['phase']}" if job["phase"] else "")]
    if job["error"]:
        lines.append(f"error: {job['error']['message']}")
    if summary := job["summary"] or {}:
        counts = summary["counts"]
        flagged = f", {counts['flagged']} flagged" if counts.get("flagged") is not None else ""
        lines.append(f"{counts['scored']} pairs scored{flagged}; ranked by {summary['ranked_by']}")
        lines += [f"warning: {warning}" for warning in summary["warnings"]]
        if gate := summary.get("gate"):
            broken = [check["message"] for check in gate["checks"] if check["verdict"] != "pass"]
            lines.append(f"gate: {gate['verdict']}" + "".join(f"; {message}" for message in broken))
    return "\n".join(lines)
