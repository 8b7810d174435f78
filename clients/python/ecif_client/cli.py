"""The command `ecif`. Exit codes: 0 well, 1 gate failed, 2 usage, 3 job failed, 4 unreachable or waited too long."""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecif_client.client import DEFAULT_URL, Client
from ecif_client.errors import ClientError, JobFailedError
from ecif_client.showing import Shown

GATE_FAILED, USAGE = 1, 2
Json = dict[str, Any]


class UsageError(ClientError):
    """The command line asks for something that cannot be."""

    exit_code = USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(arguments)
    shown = Shown(options.json)
    try:
        with Client(options.url, os.environ.get("ECIF_API_KEY") or None) as client:
            code: int = options.run(client, shown, options)
            return code
    except ClientError as error:
        shown.say(f"ecif: {error}")
        return error.exit_code
    except BrokenPipeError:  # `ecif results … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        shown.say("ecif: stopped watching; the job goes on")
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=os.environ.get("ECIF_URL", DEFAULT_URL), help="the service (ECIF_URL)")
    common.add_argument("--json", action="store_true", help="for programs")
    parser = argparse.ArgumentParser(prog="ecif", description="Which image-text pairs are hurting my CLIP model?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(run=run)
        return made

    submit = command("submit", _submit, "Submit a job on a file, a URI or a dataset id")
    submit.add_argument("data", metavar="DATA")
    submit.add_argument("--validation", metavar="VAL", help="pairs that you trust: a file, a URI, a dataset id or 10%%")
    submit.add_argument("--task", default="misalignment", choices=("misalignment", "valuation"))
    submit.add_argument("--model", metavar="ARCHITECTURE[:PRETRAINED]", help="an open_clip model")
    submit.add_argument("--spec", default="{}", help="more of the specification: JSON, or @FILE")
    submit.add_argument("--notify", metavar="URL", help="is told, by a signed POST, when the job has ended")
    submit.add_argument("--dry-run", action="store_true", help="only say what it would take; DATA and VAL are ids")
    submit.add_argument("--wait", action="store_true", help="until the job ended")
    submit.add_argument("--timeout", type=float, metavar="SECONDS", help="to wait at most")

    status = command("status", _status, "Show a job")
    status.add_argument("job")
    status.add_argument("--wait", action="store_true", help="until it ended")
    status.add_argument("--timeout", type=float, metavar="SECONDS", help="to wait at most")

    results = command("results", _results, "Show the pairs to look at first")
    results.add_argument("job")
    results.add_argument("--limit", type=int, default=20, help="0 for all")
    results.add_argument("--sort", help="any score")
    results.add_argument("--order", choices=("asc", "desc"))
    results.add_argument("--flagged", action="store_true", help="only the pairs to drop")
    results.add_argument("--rate", type=float, help="flag at this false discovery rate, not at that of the job")

    export = command("export", _export, "Write the pairs to a file")
    export.add_argument("job")
    export.add_argument("--format", default="csv")
    export.add_argument("--keep", default="all", choices=("all", "clean", "flagged"))
    export.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")

    gate = command("gate", _gate, "Fail (1) if too many pairs of a job are flagged")
    gate.add_argument("job")
    gate.add_argument(
        "--max-flagged", type=_share, required=True, metavar="5%|100", help="a share, or a number of pairs"
    )
    gate.add_argument("--timeout", type=float, metavar="SECONDS", help="to wait for the job at most")
    return parser


def _share(text: str) -> tuple[float, bool]:
    """(number, whether it is a share of 1)."""
    share = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= (100 if share else sys.maxsize) or (not share and number != int(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a share such as 5% nor a number of pairs")
    return (number / 100 if share else number, share)


def _submit(client: Client, shown: Shown, options: argparse.Namespace) -> int:
    spec: Json = {"task": options.task, **_spec(options.spec)}
    if options.model:
        architecture, _, pretrained = options.model.partition(":")
        spec["model"] = {"architecture": architecture, "pretrained": pretrained or None}
    if options.notify:
        spec["notify"] = {"url": options.notify}
    if options.validation:
        if options.validation.endswith("%"):
            spec["validation"] = {"fraction": float(options.validation[:-1]) / 100}
        else:
            spec["validation"] = {"dataset": _dataset(client, shown, options.validation, options.dry_run)}
    spec["dataset"] = _dataset(client, shown, options.data, options.dry_run)
    if options.dry_run:
        shown.estimate(client.estimate(spec))
        return 0
    job = client.submit(spec)
    shown.say(f"job {job['id']}")
    if options.wait:
        return _follow(client, shown, job["id"], options.timeout)
    shown.answer(job, job["id"])
    return 0


def _spec(text: str) -> Json:
    try:
        spec = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise UsageError(f"--spec: {error}") from None
    if not isinstance(spec, dict):
        raise UsageError("--spec must be a JSON object")
    return spec


def _dataset(client: Client, shown: Shown, named: str, only_by_id: bool = False) -> str:
    if only_by_id and ("://" in named or Path(named).is_file()):
        raise UsageError(f"{named}: a dry run uploads and fetches nothing; name a dataset by its id")
    if "://" in named:
        dataset = client.refer(named)
    elif Path(named).is_file():
        shown.say(f"uploading {named}")
        dataset = client.upload(Path(named))
    elif named.startswith("ds_"):
        return named
    else:
        raise UsageError(f"{named}: no such file, and neither a URI nor the id of a dataset")
    shown.say(f"dataset {dataset['id']}")
    return str(dataset["id"])


def _follow(client: Client, shown: Shown, job_id: str, timeout: float | None) -> int:
    with shown.following() as seen:
        job = client.wait(job_id, seconds=timeout, seen=seen)
    shown.answer(job, _in_words(job))
    return 0


def _in_words(job: Json) -> str:
    lines = [f"{job['id']}  {job['task']}  {job['status']}" + (f"  {job['phase']}" if job["phase"] else "")]
    if job["error"]:
        lines.append(f"error: {job['error']['message']}")
    summary = job["summary"] or {}
    if summary:
        counts = summary["counts"]
        flagged = f", {counts['flagged']} flagged" if counts.get("flagged") is not None else ""
        lines.append(f"{counts['scored']} pairs scored{flagged}; ranked by {summary['ranked_by']}")
        lines += [f"warning: {warning}" for warning in summary["warnings"]]
    return "\n".join(lines)


def _status(client: Client, shown: Shown, options: argparse.Namespace) -> int:
    if options.wait:
        return _follow(client, shown, options.job, options.timeout)
    job = client.job(options.job)
    shown.answer(job, _in_words(job))
    return JobFailedError.exit_code if job["status"] in ("failed", "cancelled") else 0


def _results(client: Client, shown: Shown, options: argparse.Namespace) -> int:
    question = {
        "sort": options.sort,
        "order": options.order,
        "flagged": True if options.flagged else None,
        "rate": options.rate,
    }
    rows = client.results(options.job, **{name: value for name, value in question.items() if value is not None})
    shown.rows(itertools.islice(rows, options.limit or None))
    return 0


def _export(client: Client, shown: Shown, options: argparse.Namespace) -> int:
    size = client.export(options.job, options.output, format=options.format, keep=options.keep)
    shown.answer({"file": str(options.output), "bytes": size}, f"{options.output}: {size:,} bytes")
    return 0


def _gate(client: Client, shown: Shown, options: argparse.Namespace) -> int:
    with shown.following() as seen:
        job = client.wait(options.job, seconds=options.timeout, seen=seen)
    counts = job["summary"]["counts"]
    if counts.get("flagged") is None:
        nothing = "it flags nothing, so there is nothing to hold a gate on"
        raise UsageError(f"job {options.job} is a {job['task']}: {nothing}")
    limit, is_share = options.max_flagged
    share = counts["flagged"] / counts["scored"]
    passed = (share if is_share else counts["flagged"]) <= limit
    allowed = f"{limit:.4g}" if not is_share else f"{limit:.4%}"
    text = f"{counts['flagged']} of {counts['scored']} pairs are flagged ({share:.2%}); allowed: {allowed}"
    verdict = {"passed": passed, "flagged": counts["flagged"], "scored": counts["scored"], "share": share}
    shown.answer(verdict, f"{'passed' if passed else 'FAILED'}: {text}")
    return 0 if passed else GATE_FAILED


if __name__ == "__main__":
    sys.exit(main())
