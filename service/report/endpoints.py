"""`/jobs/{id}/report`: the outcome of a job, as a page for people."""

import base64
import json
import shlex
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from service.context import HeavyDep, Service, ServiceDep
from service.errors import header_docs, problem_docs
from service.report import figures
from service.report.content import Report, gather

router = APIRouter(tags=["results"])

_STYLE = (files("service.report") / "templates" / "style.css").read_text(encoding="utf-8")
_DIGEST = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
# Nothing is loaded, run, framed or sent anywhere: captions are hostile until shown otherwise.
_POLICY = (
    f"default-src 'none'; img-src data:; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_pages = Environment(
    loader=PackageLoader("service.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters |= {"number": figures.number, "count": figures.count, "share": figures.share}


@router.get(
    "/jobs/{job_id}/report",
    response_class=HTMLResponse,
    responses={
        200: {"headers": header_docs(Content_Security_Policy="nothing is loaded or run")},
        **problem_docs(404, 409),
    },
)
async def get_report(job_id: str, request: Request, service: ServiceDep, heavy: HeavyDep) -> HTMLResponse:
    """The pairs at both ends of the ranking as pictures, the scores, what to be warned of, and what to do next.

    One file that needs nothing else, so it can be kept and sent on.
    """
    base, with_key = str(request.base_url).rstrip("/"), "authorization" in request.headers
    page = await heavy.run(_page, job_id, service, base, with_key)
    return HTMLResponse(
        page,
        headers={
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "private, no-store",
        },
    )


def _page(job_id: str, service: Service, base: str, with_key: bool) -> str:
    report = gather(job_id, service.database, service.blobs)
    return _pages.get_template("page.html").render(
        report=report,
        commands=_commands(report, base, with_key),
        specification=json.dumps(report.job.spec, indent=2, ensure_ascii=False),
        style=_STYLE,
        policy=_POLICY.rpartition("; frame")[0],  # of which a page cannot say this itself
    )


def _commands(report: Report, base: str, with_key: bool) -> list[tuple[str, str]]:
    """What to do next: words, and the command."""
    key = '-H "Authorization: Bearer $ECIF_KEY" ' if with_key else ""
    job = report.job

    def get(file: str, path: str) -> str:
        return f"curl -f {key}-o {shlex.quote(file)} {shlex.quote(f'{base}/jobs/{job.id}/{path}')}"

    if job.task == "removal":
        return [
            ("The edited model, for open_clip", get("edited.safetensors", "checkpoint")),
            ("Every score of every pair", get("scores.csv", "export?format=csv")),
        ]
    if job.task == "traceback":
        return [("All queries and their pairs", get("traced.csv", "export?format=csv"))]
    every = ("Every pair with its scores, in this order", get("scores.csv", "export?format=csv"))
    if not job.flagged_count:
        return [every]
    commands = [("The flagged pairs, to look through", get("flagged.csv", "export?keep=flagged&format=csv"))]
    if report.with_images:
        unpack = "tar xf clean-open_clip.tar  # then: open_clip_train.main --dataset-type csv --train-data pairs.tsv"
        trained = get("clean-open_clip.tar", "export?keep=clean&format=open_clip")
        commands += [
            ("The clean pairs as a webdataset", get("clean.tar", "export?keep=clean&format=webdataset")),
            ("The clean pairs as open_clip trains from them", f"{trained}\n{unpack}"),
        ]
    return [*commands, ("The clean pairs as a table", get("clean.parquet", "export?keep=clean&format=parquet")), every]
