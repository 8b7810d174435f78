"""The frameworks, their versions, and what is pasted of each."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Framework:
    """One way to wire the service in. `requirements` go into an environment of its own, beside the client; `step` is
    the file that `docs/pipelines/` shows. `drive.py` beside it runs it: `first`, and `again` after a kill."""

    name: str
    requirements: tuple[str, ...]
    step: str
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        return HERE / self.name


FRAMEWORKS = (
    Framework(
        "prefect",
        ("prefect==3.9.1",),
        "flow.py",
        (
            ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
            ("DO_NOT_TRACK", "1"),
            ("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120"),
        ),
    ),
    Framework("dagster", ("dagster==1.13.29",), "assets.py"),
    Framework("mlflow", ("mlflow==3.17.2",), "step.py", (("MLFLOW_DISABLE_TELEMETRY", "true"),)),
)
