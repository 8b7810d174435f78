"""Renders the workflow of `workflow.py`, has hera's models of Argo's API read it, and runs the command of each
container here, in the order of the dag. There is no cluster. After a kill the pod runs again, in the same workflow."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from hera.workflows.models import Container, Workflow
from workflow import workflow as written

VALUES = {
    "workflow.uid": Path.cwd().name,
    "workflow.parameters.url": os.environ["ECIF_URL"],
    "workflow.parameters.train": os.environ["TRAIN"],
    "workflow.parameters.clean": os.environ["CLEAN"],
    "workflow.parameters.max-flagged": "15%",
}


def filled(text: str) -> str:
    """With the value of each parameter; what a pod has to itself is a folder of this trial."""
    own = text.replace("/tmp/", f"{Path.cwd()}/")
    return re.sub(r"\{\{(\S+?)}}", lambda found: VALUES[found.group(1)], own)


def run(container: Container) -> None:
    named = {one.name: filled(one.value) for one in container.env or () if one.value is not None}
    subprocess.run([filled(part) for part in container.command], env=os.environ | named, check=True)


text = written.to_yaml()
read = Workflow.model_validate(yaml.safe_load(text))
templates = {template.name: template for template in read.spec.templates}
(find, judge) = templates[read.spec.entrypoint].dag.tasks
print(text)
if judge.depends != "find" or templates["find"].retry_strategy.limit is None:
    sys.exit("the order of the tasks is another")
run(templates["find"].container)
VALUES["inputs.parameters.job"] = Path("job").read_text()
run(templates["judge"].container)
