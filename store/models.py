"""Models that users bring: all SQL over their rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, defer
from sqlalchemy.orm.attributes import set_committed_value

from store import jobs, shards
from store.database import tenant_of
from store.errors import ConflictError, InvalidError
from store.nouns import Before, Noun, Wanted, abridged
from store.phases import Owner, OwnerKind, Phase
from store.states import ModelStatus
from store.tables import Model

_SHARDS = 1000  # a model has a handful

Architecture = str | dict[str, Any]
"""A name that open_clip knows, or a configuration of one."""


def upload_blob(model_id: str) -> str:
    """Where the checkpoint of a model is kept that was uploaded."""
    return f"models/{model_id}/checkpoint.safetensors"


def blob_of(model: Model) -> str:
    """Where the checkpoint of a model lies."""
    return model.blob or upload_blob(model.id)


def create(
    session: Session,
    *,
    model_id: str,
    name: str | None,
    architecture: Architecture | None,
    digest: str | None = None,
    size_bytes: int = 0,
    source: str | None = None,
) -> Model:
    """Promise to check a checkpoint that is kept already, or what is to be fetched from `source`; queue its work."""
    model = Model(
        id=model_id,
        tenant=tenant_of(session),
        name=name,
        architecture=architecture,
        status=ModelStatus.CHECKING,
        digest=digest,
        size_bytes=size_bytes,
        source=source,
    )
    session.add(model)
    session.flush()
    session.refresh(model)
    first = Phase.CHECK if source is None else Phase.FETCH
    shards.open_phase(session, Owner(OwnerKind.MODEL, model_id), first, [shards.Planned({})])
    return model


def fetched(
    session: Session, model_id: str, *, blob: str, architecture: Architecture, digest: str, size_bytes: int
) -> None:
    """Record what was fetched for a model."""
    values = {"blob": blob, "architecture": architecture, "digest": digest, "size_bytes": size_bytes}
    session.execute(update(Model).where(Model.id == model_id).values(values))


_MODELS = Noun(Model, "model")
find, get, exists = _MODELS.find, _MODELS.get, _MODELS.exists
lock, count = _MODELS.lock, _MODELS.count
to_purge = _MODELS.to_purge  # no unfinished job names a deleted one, and the others need it no more


def usable(session: Session, model_id: str, param: str) -> Model:
    """A model that a job may name: ready, or still being checked. The row is locked against deletion.

    Raises:
        InvalidError: there is none, or it failed; `param` names the field that asked for it.
    """
    model = _MODELS.named(session, model_id, param)
    if model.status == ModelStatus.FAILED:
        reason = (model.error or {}).get("message", "its check failed")
        raise InvalidError("model_failed", f"model {model_id} cannot be used: {reason}", param)
    return model


def page(session: Session, wanted: Wanted, *, limit: int, before: Before) -> Sequence[Model]:
    """Newest first, from just below `before`. For reading only: a long configuration is abridged."""
    query = _MODELS.page(wanted, limit=limit, before=before).options(defer(Model.architecture))
    models = []
    for model, architecture in session.execute(query.add_columns(abridged(Model.architecture, ()))):
        set_committed_value(model, "architecture", architecture)
        models.append(model)
    return models


def stored_bytes(session: Session) -> int:
    """The size of all checkpoints that are kept."""
    return int(session.scalar(select(func.sum(Model.size_bytes)).where(Model.deleted_at.is_(None))) or 0)


def mark_deleted(session: Session, model_id: str) -> None:
    """Make it invisible now; the sweeper purges what it holds.

    Raises:
        NotFoundError: there is none.
        ConflictError: an unfinished job uses it.
    """
    model = _MODELS.lock_visible(session, model_id)
    users = jobs.unfinished_with(session, model_id)
    if users:
        raise ConflictError("model_in_use", f"job {users[0]} uses it: cancel it or wait for it to end")
    model.deleted_at = func.now()
    shards.drop_open(session, Owner(OwnerKind.MODEL, model_id))


def finish_check(session: Session, model_id: str) -> None:
    """Make a model ready. The jobs that waited for it begin in transactions of their own (`jobs.begin`)."""
    _end(session, model_id, status=ModelStatus.READY)


def fail(session: Session, model_id: str, error: dict[str, Any]) -> None:
    """End a model as failed, unless it has ended already. The jobs that waited for it end in transactions of their own
    (`jobs.begin`)."""
    if _end(session, model_id, status=ModelStatus.FAILED, error=error):
        shards.drop_open(session, Owner(OwnerKind.MODEL, model_id))


def _end(session: Session, model_id: str, **values: Any) -> bool:
    unended = (Model.id == model_id, Model.status == ModelStatus.CHECKING)
    ended = session.scalar(update(Model).where(*unended).values(finished_at=func.now(), **values).returning(Model.id))
    return ended is not None


def purge(session: Session, model: Model) -> None:
    """Delete what is left of a deleted model."""
    shards.purge(session, Owner(OwnerKind.MODEL, model.id), _SHARDS)
    session.delete(model)
