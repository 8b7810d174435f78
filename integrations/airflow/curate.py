"""Airflow 3: a dag of two tasks; the second writes the dataset without its wrong captions."""

import os
from datetime import timedelta

from airflow.sdk import dag, task
from ecif_operator import SERVICE, FindWrongCaptions

from ecif_client import Client

RETRIES = {"retries": 3, "retry_delay": timedelta(minutes=1)}


@dag(schedule=None, default_args=RETRIES)
def curate() -> None:
    @task
    def export_clean(job: str) -> None:
        with Client(*SERVICE) as ecif:
            ecif.export(job, os.environ["INTO"], format="jsonl", keep="clean")

    found = FindWrongCaptions(task_id="find", train=os.environ["TRAIN"], clean=os.environ["CLEAN"])
    export_clean(found.output)


dag_of_two = curate()
