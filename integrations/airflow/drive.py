"""Runs the dag of `curate.py` by Airflow's own `dag.test()`: a database, a deferral and a trigger, without servers.
After a kill, clears the tasks of that dag run and runs them again in it, as after `airflow tasks clear`."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
DAGS = Path("dags").resolve()
INTO = Path("clean.jsonl").resolve()

os.environ |= {
    "AIRFLOW_HOME": str(Path.cwd()),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
    "INTO": str(INTO),
}
sys.path.insert(0, str(DAGS))
if sys.argv[1] == "first":
    DAGS.mkdir()
    for name in ("ecif_operator.py", "curate.py"):
        shutil.copy(HERE / name, DAGS)
    subprocess.run(["airflow", "db", "migrate"], check=True)

from airflow.models.dagrun import DagRun  # noqa: E402
from airflow.models.taskinstance import TaskInstance, clear_task_instances  # noqa: E402
from airflow.sdk.definitions.dag import _run_task  # noqa: E402
from airflow.serialization.serialized_objects import DagSerialization  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from curate import dag_of_two as dag  # noqa: E402
from sqlalchemy import select  # noqa: E402


def again() -> None:
    """What `dag.test()` does of a dag run, but of the one that was killed: it would make another."""
    with create_session() as session:
        (run,) = session.scalars(select(DagRun))
        run.dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        tried = list(run.get_task_instances(session=session))
        for instance in tried:
            if instance.state == "running":  # nobody saw it die; a scheduler does when its heartbeats stay away
                instance.state = "failed"
        clear_task_instances(tried, session)
        session.commit()
        run.set_state("running")
        while run.state == "running":
            session.expire_all()
            ready, _ = run.update_state(session=session)
            for instance in ready:
                instance.state = "scheduled"
                instance.try_number += 1
            session.commit()
            for instance in ready:
                _run_task(ti=instance, task=dag.task_dict[instance.task_id], run_triggerer=True)


if sys.argv[1] == "first":
    dag.test(logical_date=datetime.now(UTC))
else:
    again()
with create_session() as session:
    (run,) = session.scalars(select(DagRun))
    tries = {ti.task_id: (str(ti.state), ti.try_number, ti.next_method) for ti in session.scalars(select(TaskInstance))}
print(run.run_id, run.state, tries)
if run.state != "success" or not 300 <= len(INTO.read_text().splitlines()) < 400:
    sys.exit("the dag did not do what it should")
