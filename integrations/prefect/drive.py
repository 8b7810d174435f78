"""Runs `flow.py`; after a kill, retries the same flow run by Prefect's own command."""

import os
import subprocess
import sys
from pathlib import Path

from flow import curate
from prefect import State, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

INTO = Path("clean.jsonl")


def the_run() -> FlowRun:
    with get_client(sync_client=True) as prefect:
        (run,) = prefect.read_flow_runs()
        return run


def first() -> None:
    curate(os.environ["TRAIN"], os.environ["CLEAN"], str(INTO))


def again() -> None:
    with get_client(sync_client=True) as prefect:
        # Nobody saw it die. A server marks such a run as crashed when its heartbeats stay away.
        state: State = Crashed(message="killed")
        prefect.set_flow_run_state(the_run().id, state, force=True)
    entrypoint = f"{Path(__file__).with_name('flow.py')}:curate"
    subprocess.run(["prefect", "flow-run", "retry", str(the_run().id), "--entrypoint", entrypoint], check=True)


{"first": first, "again": again}[sys.argv[1]]()
if the_run().state_name != "Completed":
    sys.exit(f"the flow run is {the_run().state}")
if not 300 <= len(INTO.read_text().splitlines()) < 400:
    sys.exit("the flagged pairs are still there")
