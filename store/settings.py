"""Settings: one frozen object, read once from the environment and passed in."""

import ctypes
import os
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from store.phases import Lane
from store.sources import Source

CODE_VERSION: str = version("ecif")


_SET_DUMPABLE = 4  # prctl(2)


def keep_memory_private() -> None:
    """From now on `/proc/PID/environ` and `/proc/PID/mem` of this process are for root alone, no debugger of the same
    user attaches, and no core is dumped. A program that it becomes by exec begins anew. Linux only; nothing elsewhere.

    Raises:
        OSError: the kernel refuses.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB


class Settings(BaseSettings):
    """Everything a process is told from outside. Each field is the environment variable of the same name."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    ecif_home: Path = Field(default=Path(".ecif"), description="folder for everything kept on this machine")
    database_url: str = Field(default="", description="PostgreSQL; `make serve` starts its own where empty")
    redis_url: str = Field(default="", description="Redis broker; `make serve` starts its own where empty")
    blob_url: str = Field(default="", description="file:///folder or s3://bucket/prefix; default ECIF_HOME/blobs")

    ecif_open: bool = Field(
        default=False, description="while there are no API keys, answer not only this machine: others ask who it is"
    )
    ecif_max_upload_bytes: Annotated[int, Field(gt=0)] = 100 * GiB
    ecif_upload_kept_seconds: Annotated[float, Field(gt=0)] = Field(
        default=24 * 3600.0, description="how long an unfinished or unused upload is kept after its last bytes came"
    )
    # For each tenant with keys. Without keys there is one tenant, on its own machine, and no limit.
    ecif_requests_per_minute: Annotated[int, Field(gt=0)] = 1200
    ecif_max_unfinished_jobs: Annotated[int, Field(gt=0)] = 1000
    ecif_max_unfinished_datasets: Annotated[int, Field(gt=0)] = 100  # that are still being ingested
    ecif_max_stored_bytes: Annotated[int, Field(gt=0)] = 1024 * GiB  # uploads, what is made of them, jobs and results
    ecif_sources: str = Field(
        default="",
        description="hosts and buckets, with a folder or without, separated by spaces, that datasets may be fetched "
        "from: `https://data.example.org s3://team/sets`. Where empty: any public https, and buckets (s3, gs) as long "
        "as there are no API keys",
    )
    ecif_private_sources: bool = Field(
        default=False, description="fetch datasets from http and from addresses that are not public, too"
    )
    ecif_private_receivers: bool = Field(
        default=False, description="tell of ended jobs at addresses that are not public, and there by http, too"
    )
    ecif_feature_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=50 * GiB,
        description="of what models have made of datasets; beyond, what was used longest ago and no job works on goes",
    )
    ecif_hub_repositories: str = Field(
        default="",
        description="organisations and repositories of the Hugging Face hub, separated by spaces, that models may be "
        "fetched from by `hf-hub:` and by text towers in a configuration. Where empty: any as long as there are no API "
        "keys, and none with them",
    )
    ecif_hub_token: bool = Field(
        default=False,
        description="while there are API keys, show the hub the worker's own token (HF_TOKEN), too: every tenant can "
        "then use what it opens",
    )
    ecif_hub_model_bytes: Annotated[int, Field(gt=0)] = Field(
        default=20 * GiB, description="of the weights of one `hf-hub:` model; a larger one is not downloaded"
    )
    ecif_hub_cache_bytes: Annotated[int, Field(gt=0)] = Field(
        default=100 * GiB, description="of all `hf-hub:` models on this disk; beyond, what was used longest ago goes"
    )
    ecif_max_image_pixels: Annotated[int, Field(gt=0)] = 64_000_000
    ecif_max_streams: Annotated[int, Field(gt=0)] = 100  # of events: open at once, for each tenant in each process
    ecif_max_heavy_requests: Annotated[int, Field(gt=0)] = Field(
        default=8, description="exports, reports and checkpoints under way at once, for each tenant in each process"
    )
    ecif_statement_seconds: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="after which PostgreSQL ends a statement of the API; workers' are not bounded"
    )
    ecif_stream_seconds: Annotated[float, Field(gt=0)] = 600.0  # after which one ends, and its key is asked for again
    ecif_lease_seconds: Annotated[float, Field(gt=0)] = 30.0
    ecif_heartbeat_seconds: Annotated[float, Field(gt=0)] = 1.0
    ecif_sweep_seconds: Annotated[float, Field(gt=0)] = 5.0
    ecif_grace_seconds: Annotated[float, Field(gt=0)] = 90.0  # for a worker that is told to end, then it hands back
    ecif_lanes: str = Field(
        default="fetch ingest compute", description="what a worker takes up: some of fetch, ingest and compute"
    )
    ecif_max_running_shards: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of one tenant at a time; 0: as many as there are workers"
    )
    # How often a shard may be set back before its owner fails: because it raised, its worker vanished, memory ran out,
    # or, in a row, because the database, a disk or the store of files failed it (a minute each in the end).
    ecif_max_raised: Annotated[int, Field(gt=0)] = 3
    ecif_max_vanished: Annotated[int, Field(gt=0)] = 10
    ecif_max_exhausted: Annotated[int, Field(gt=0)] = 2
    ecif_max_hindered: Annotated[int, Field(gt=0)] = 500
    ecif_fetch_seconds: Annotated[float, Field(gt=0)] = Field(
        default=3000.0, description="in which all that a reference names must be copied"
    )
    ecif_fetch_least_bytes_per_second: Annotated[int, Field(ge=0)] = Field(
        default=10 * KiB, description="a source that sends less, a minute long, is given up"
    )
    ecif_shards_kept_seconds: Annotated[float, Field(ge=0)] = Field(
        default=24 * 3600.0, description="how long the records of finished work are kept, for those who look into it"
    )
    ecif_results_apart: Annotated[int, Field(gt=0)] = Field(
        default=500_000, description="results from which on a job gets a partition of its own"
    )
    ecif_rounds_from: Annotated[float, Field(ge=0)] = Field(
        default=2e10,
        description="pairs times weights from which on a step of a fit or a solve is shared among workers",
    )
    ecif_shard_pairs: Annotated[int, Field(gt=0)] = 4096
    ecif_shard_bytes: Annotated[int, Field(gt=0)] = 64 * MiB
    ecif_max_model_bytes: Annotated[int, Field(gt=0)] = Field(
        default=16 * GiB, description="of a model's weights in float32: a larger one is refused when a job is submitted"
    )
    ecif_device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that a worker serves."""
        return tuple(Lane(name) for name in self.ecif_lanes.split())

    @field_validator("ecif_lanes")
    @classmethod
    def _known_lanes(cls, value: str) -> str:
        unknown = set(value.split()) - set(Lane)
        if unknown or not value.split():
            raise ValueError(f"names lanes, separated by spaces, out of {' '.join(Lane)}")
        return value

    @field_validator("ecif_sources")
    @classmethod
    def _are_sources(cls, value: str) -> str:
        for entry in value.split():
            Source.of(entry)
        return value

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        # The object is frozen for everyone else; here it is still being made.
        home = self.ecif_home.expanduser().resolve()
        object.__setattr__(self, "ecif_home", home)
        if not self.blob_url:
            object.__setattr__(self, "blob_url", (home / "blobs").as_uri())
        for scheme in ("postgres://", "postgresql://"):
            if self.database_url.startswith(scheme):
                url = "postgresql+psycopg://" + self.database_url.removeprefix(scheme)
                object.__setattr__(self, "database_url", url)
        return self


@cache
def get_settings() -> Settings:
    """Return the settings of this process, read from its environment the first time.

    They hold passwords, so whoever reads them keeps its memory and environment from other processes.

    Raises:
        pydantic.ValidationError: a variable has a value that its field refuses.
    """
    keep_memory_private()
    return Settings()
