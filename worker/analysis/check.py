"""Check: load a model that a user brought, once, to see whether it fits its architecture."""

from store import models
from store.errors import LostLeaseError, NotFoundError
from worker.analysis.models import device_of, kept_model
from worker.attempts.task import Done, Task
from worker.outputs import CheckOutput
from worker.pipeline import Planning


def run(task: Task) -> Done[CheckOutput]:
    """Load a model.

    Raises:
        InvalidError: its checkpoint does not fit its architecture, or holds a number that is not finite.
    """
    model_id = task.claim.owner.id
    try:
        with task.database.transaction() as session:
            model = models.get(session, model_id)
    except NotFoundError as error:
        raise LostLeaseError(error.message) from error
    loaded = kept_model(task, model, device_of(task.settings))
    return Done(CheckOutput(loaded.digest), 1)


def finish(planning: Planning) -> None:
    """The model fits: jobs may use it."""
    models.finish_check(planning.session, planning.owner.id)
