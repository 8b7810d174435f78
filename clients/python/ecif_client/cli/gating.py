"""`ecif gate`: the verdict of the service on a job, and one bound of the command's own, as a CI job reads it."""

from typing import Any
from xml.etree import ElementTree

import click

from ecif_client._sync.client import Client
from ecif_client.answers import Job
from ecif_client.cli.parameters import Share, command
from ecif_client.cli.showing import Shown, printable
from ecif_client.errors import UsageError

GATE_FAILED = 1
FORMATS = ("text", "junit", "github", "markdown")

Check = dict[str, Any]


@command("gate")
@click.argument("job")
@click.option("--max-flagged", type=Share(), metavar="5%|100", help="A share, or a number, beside its gate.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="junit: XML for CI servers; github: annotations of a workflow; markdown: a table.",
)
@click.option("--timeout", type=float, metavar="SECONDS", help="To wait for the job at most.")
def gate(
    client: Client, shown: Shown, job: str, max_flagged: tuple[float, bool] | None, form: str, timeout: float | None
) -> int:  # fmt: skip
    """Fail if the data of a job are not as they must be.

    Waits until the job has ended. The verdict is that of the `gate` in its specification, and of --max-flagged if that
    is given. The exit code is 0 if it passes, with warnings too, and 1 if it does not.
    """
    if form != "text" and shown.form is not None:
        raise UsageError("--format is for CI servers, and --json and --output for programs: name one")
    with shown.following() as seen:
        ended = client.wait(job, seconds=timeout, seen=seen)
    of_job = (ended["summary"] or {}).get("gate")
    checks: list[Check] = list(of_job["checks"]) if of_job else []
    content: dict[str, Any] = {}
    if max_flagged is not None:
        check, content = _of_flagged(ended, *max_flagged)
        checks.append(check)
    if not checks:
        raise UsageError(f"job {job} has no gate in its specification: submit it with one, or name --max-flagged")
    verdicts = {check["verdict"] for check in checks}
    verdict = next((one for one in ("fail", "warn") if one in verdicts), "pass")
    content |= {"passed": verdict != "fail", "verdict": verdict, "checks": checks}
    if form == "text":
        shown.answer(content, "\n".join(_in_words(check) for check in checks))
    else:
        click.echo({"junit": _junit, "github": _github, "markdown": _markdown}[form](ended, checks), nl=False)
    return GATE_FAILED if verdict == "fail" else 0


def _of_flagged(job: Job, limit: float, is_share: bool) -> tuple[Check, dict[str, Any]]:
    counts = (job["summary"] or {}).get("counts", {})
    if counts.get("flagged") is None:
        nothing = "it flags nothing, so there is nothing to hold --max-flagged on"
        raise UsageError(f"job {job['id']} is a {job['task']}: {nothing}")
    flagged, scored = counts["flagged"], counts["scored"]
    share = flagged / scored if scored else 0.0
    passed = (share if is_share else flagged) <= limit
    allowed = f"{limit:.4%}" if is_share else f"{limit:.4g}"
    check = {
        "level": "error",
        "rule": "max-flagged",
        "measured": share if is_share else flagged,
        "comparison": "at most",
        "bound": limit,
        "verdict": "pass" if passed else "fail",
        "message": f"{flagged} of {scored} pairs are flagged ({share:.2%}); allowed: {allowed}",
    }
    return check, {"flagged": flagged, "scored": scored, "share": share}


_WORDS = {"pass": "passed", "warn": "warning", "fail": "FAILED"}


def _in_words(check: Check) -> str:
    return f"{_WORDS[check['verdict']]}: {check['message']}"


def _junit(job: Job, checks: list[Check]) -> str:
    """What Jenkins, GitLab and others read; a warning is a test that passed and says something."""
    failed = sum(check["verdict"] == "fail" for check in checks)
    counts = {"tests": str(len(checks)), "failures": str(failed), "errors": "0", "skipped": "0"}
    suite = ElementTree.Element("testsuite", {"name": f"ecif gate {job['id']}", **counts})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "ecif.gate", "name": _name(check)})
        message = printable(check["message"])
        if check["verdict"] == "fail":
            ElementTree.SubElement(case, "failure", {"message": message}).text = message
        else:
            ElementTree.SubElement(case, "system-out").text = _in_words({**check, "message": message})
    whole = ElementTree.Element("testsuites", counts)
    whole.append(suite)
    ElementTree.indent(whole)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(whole, encoding="unicode")}\n'


_ANNOTATIONS = {"pass": "notice", "warn": "warning", "fail": "error"}


def _github(job: Job, checks: list[Check]) -> str:
    """Annotations, as workflow commands: a line each."""
    lines = []
    for check in checks:
        title = _escaped(f"ecif gate {job['id']}: {_name(check)}").replace(":", "%3A").replace(",", "%2C")
        lines.append(f"::{_ANNOTATIONS[check['verdict']]} title={title}::{_escaped(check['message'])}\n")
    return "".join(lines)


def _escaped(text: str) -> str:
    return printable(text).replace("%", "%25")


def _markdown(job: Job, checks: list[Check]) -> str:
    rows = [("verdict", "level", "rule", "measured"), ("---",) * 4]
    rows += [(_WORDS[check["verdict"]], check["level"], check["rule"], check["message"]) for check in checks]
    lines = ["| " + " | ".join(printable(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return f"**ecif gate** of job {job['id']}\n\n" + "\n".join(lines) + "\n"


def _name(check: Check) -> str:
    return f"{check['level']} {check['rule']} {check['comparison']} {check['bound']:g}"
