"""Whose rows a session sees. One made for a tenant adds `tenant = …` to every query over datasets, models, jobs and
uploads itself.

A query that forgets whose rows it wants is then a query for the caller's own, not a leak. Pairs, results, shards and
blobs are reached only through the row of their dataset, model or job. Sessions of workers are of no tenant, and see
all.
"""

from sqlalchemy import event, text
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from store.tables import DEFAULT_TENANT, Dataset, Job, Model, Upload

TENANT = "tenant"
"""The key in `Session.info`."""

_LIMITS = 0x0EC1F  # the first half of an advisory lock of our own


def tenant_of(session: Session) -> str:
    """Whose rows this session makes."""
    return str(session.info.get(TENANT, DEFAULT_TENANT))


def one_at_a_time(session: Session, tenant: str | None = None) -> None:
    """Hold back other transactions of the same tenant that ask for this too, until this one ends: what is counted
    against a limit stays counted. Before any row of what is kept is locked, so that nobody waits in a circle. The
    tenant is the session's own unless another is named."""
    session.execute(text("SELECT pg_advisory_xact_lock(:kind, hashtext(:tenant))"), {
        "kind": _LIMITS, "tenant": tenant or tenant_of(session),
    })  # fmt: skip


@event.listens_for(Session, "do_orm_execute")
def _only_its_own(state: ORMExecuteState) -> None:
    tenant = state.session.info.get(TENANT)
    if tenant is not None and (state.is_select or state.is_update or state.is_delete):
        state.statement = state.statement.options(
            with_loader_criteria(Dataset, Dataset.tenant == tenant),
            with_loader_criteria(Job, Job.tenant == tenant),
            with_loader_criteria(Model, Model.tenant == tenant),
            with_loader_criteria(Upload, Upload.tenant == tenant),
        )
