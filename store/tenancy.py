"""Whose rows a session sees. One made for a tenant adds `tenant = …` to every query over datasets and jobs itself.

A query that forgets whose rows it wants is then a query for the caller's own, not a leak. Pairs, results, shards and
blobs are reached only through the row of their dataset or job. Sessions of workers are of no tenant, and see all.
"""

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from store.tables import DEFAULT_TENANT, Dataset, Job

TENANT = "tenant"
"""The key in `Session.info`."""


def tenant_of(session: Session) -> str:
    """Whose rows this session makes."""
    return str(session.info.get(TENANT, DEFAULT_TENANT))


@event.listens_for(Session, "do_orm_execute")
def _only_its_own(state: ORMExecuteState) -> None:
    tenant = state.session.info.get(TENANT)
    if tenant is not None and (state.is_select or state.is_update or state.is_delete):
        state.statement = state.statement.options(
            with_loader_criteria(Dataset, Dataset.tenant == tenant),
            with_loader_criteria(Job, Job.tenant == tenant),
        )
