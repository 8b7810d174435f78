"""A session of a tenant sees, counts, changes and makes rows of that tenant only, whatever it asks for."""

import pytest
from sqlalchemy import delete, exists, func, select, update

from store import datasets, jobs
from store.database import Database
from store.errors import InvalidError, NotFoundError
from store.tables import Dataset, Job


@pytest.fixture
def tenants(database: Database) -> dict[str, Database]:
    """Databases of two tenants, each with a dataset and a job on it, named after them."""
    scoped = {tenant: database.of_tenant(tenant) for tenant in ("a", "b")}
    for tenant, own in scoped.items():
        with own.transaction() as session:
            datasets.create(
                session, dataset_id=f"ds_{tenant}", name=None, filename=None, format=None, digest="", size_bytes=7,
                upload_blob="",
            )  # fmt: skip
            jobs.create(
                session, job_id=f"job_{tenant}", task="misalignment", spec={}, code_version="0",
                dataset_id=f"ds_{tenant}", validation_dataset_id=None, dataset_digest="",
            )  # fmt: skip
    return scoped


def test_queries_of_any_shape_see_the_tenants_own(tenants: dict[str, Database]) -> None:
    with tenants["a"].transaction() as session:
        assert session.scalars(select(Dataset.id)).all() == ["ds_a"]
        assert session.get(Dataset, "ds_b") is None
        assert session.get(Job, "job_b") is None
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert session.scalar(select(func.sum(Dataset.size_bytes))) == 7
        assert session.scalar(select(select(Dataset.number).where(Dataset.id == "ds_b").scalar_subquery())) is None
        assert session.scalar(select(exists(select(Job.id).where(Job.id == "job_b")))) is False
        assert session.scalars(select(Job.id).join(Dataset, Dataset.id == Job.dataset_id)).all() == ["job_a"]
        assert session.scalars(select(Job.id).with_for_update()).all() == ["job_a"]


def test_changes_reach_the_tenants_own_only(tenants: dict[str, Database], database: Database) -> None:
    with tenants["a"].transaction() as session:
        session.execute(update(Job).values(task="changed"))
        session.execute(delete(Dataset))
    with database.transaction() as session:
        assert dict(session.execute(select(Job.id, Job.task)).all()) == {"job_a": "changed", "job_b": "misalignment"}
        assert session.scalars(select(Dataset.id)).all() == ["ds_b"]


def test_the_nouns_do_not_find_what_is_anothers(tenants: dict[str, Database]) -> None:
    with tenants["a"].transaction() as session:
        for act in (
            lambda: datasets.get(session, "ds_b"),
            lambda: datasets.mark_deleted(session, "ds_b"),
            lambda: jobs.get(session, "job_b"),
            lambda: jobs.cancel(session, "job_b"),
            lambda: jobs.mark_deleted(session, "job_b"),
        ):
            with pytest.raises(NotFoundError):
                act()
        with pytest.raises(InvalidError):
            datasets.usable(session, "ds_b", "dataset")
        assert (datasets.count(session), jobs.count(session), jobs.count_unfinished(session)) == (1, 1, 1)


def test_a_session_of_no_tenant_is_a_workers_and_sees_all(tenants: dict[str, Database], database: Database) -> None:
    with database.transaction() as session:
        assert dict(session.execute(select(Dataset.id, Dataset.tenant)).all()) == {"ds_a": "a", "ds_b": "b"}
