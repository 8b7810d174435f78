"""Checks `action.yml` and `workflow.yml` with actionlint, and does the action's steps as a runner of GitHub does: with
bash, and files for outputs and summary. There is no GitHub here. After a kill the same run is run again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ACTION = yaml.safe_load((HERE / "action.yml").read_text())
WORKFLOW = yaml.safe_load((HERE / "workflow.yml").read_text())
SUMMARY = Path("summary.md").resolve()
CONTEXT = {
    "github.action_path": str(HERE),
    "github.repository": "owner/data",
    "github.run_id": Path.cwd().name,  # which a re-run keeps
    "github.job": "captions",
    "github.action": "ecif",
    "strategy.job-index": "0",
    "vars.ECIF_URL": os.environ["ECIF_URL"],
    "secrets.ECIF_API_KEY": "",
    "inputs.dataset": os.environ["TRAIN"],
    "inputs.validation": os.environ["CLEAN"],
}


def lint() -> None:
    """The workflow beside the action it uses; and the action's steps as those of a job, since actionlint reads no more
    of an action than its inputs and outputs."""
    checked = Path("checked")
    action = checked / "ecif" / "integrations" / "github"
    action.mkdir(parents=True)
    shutil.copy(HERE / "action.yml", action)
    workflows = checked / ".github" / "workflows"
    workflows.mkdir(parents=True)
    shutil.copy(HERE / "workflow.yml", workflows)
    inputs = {name: {"type": "string"} | field for name, field in ACTION["inputs"].items()}
    outputs = {name: field["value"] for name, field in ACTION["outputs"].items()}
    job = {"runs-on": "ubuntu-latest", "steps": ACTION["runs"]["steps"], "outputs": outputs}
    steps = {"on": {"workflow_call": {"inputs": inputs}}, "jobs": {"captions": job}}
    (workflows / "steps.yml").write_text(yaml.safe_dump(steps, sort_keys=False))
    subprocess.run(["git", "init", "--quiet"], cwd=checked, check=True)
    subprocess.run(["actionlint", "-shellcheck=", "-pyflakes="], cwd=checked, check=True)
    wrong = (workflows / "steps.yml").read_text().replace("inputs.spec", "inputs.spectre")
    (workflows / "steps.yml").write_text(wrong)
    refused = subprocess.run(["actionlint"], cwd=checked, capture_output=True, text=True, check=False)
    assert refused.returncode == 1, refused
    assert '"spectre" is not defined' in refused.stdout, refused.stdout


def filled(text: str) -> str:
    """With the value of each expression; all of ours are names of values."""
    return re.sub(r"\$\{\{ (\S+) }}", lambda found: CONTEXT[found.group(1)], text)


def act() -> int:
    """Every step of the action, until one fails."""
    (used,) = (step for step in WORKFLOW["jobs"]["captions"]["steps"] if step.get("id") == "ecif")
    for name, field in ACTION["inputs"].items():
        given = used["with"].get(name, field.get("default"))
        CONTEXT.setdefault(f"inputs.{name}", filled(str(given)))
    for number, step in enumerate(ACTION["runs"]["steps"]):
        if code := run(number, step):
            return code
    return 0


def run(number: int, step: dict[str, Any]) -> int:
    assert step["shell"] == "bash"
    script, output = Path(f"step{number}.sh"), Path(f"output{number}")
    script.write_text(step["run"])
    output.write_text("")
    files = {
        "GITHUB_OUTPUT": str(output.resolve()),
        "GITHUB_STEP_SUMMARY": str(SUMMARY),
        "RUNNER_TEMP": str(Path.cwd()),
    }
    environment = {name: filled(value) for name, value in step.get("env", {}).items()}
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    code = subprocess.run(shell, env=os.environ | environment | files, check=False).returncode
    for line in output.read_text().splitlines():
        name, _, value = line.partition("=")
        CONTEXT[f"steps.{step['id']}.outputs.{name}"] = value
    return code


if sys.argv[1] == "first":
    lint()
if code := act():
    sys.exit(code)
print(SUMMARY.read_text())
if not 20 < int(CONTEXT["steps.judge.outputs.flagged"]) < 60 or SUMMARY.read_text().count("\n|") < 20:
    sys.exit("the summary does not hold what the job came to")
CONTEXT["inputs.max-flagged"] = "1"
if act() != 1:
    sys.exit("the gate lets through what it should not")
