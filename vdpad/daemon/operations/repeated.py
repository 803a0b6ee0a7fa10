"""The same again: what is asked for once more, and what only looks like it."""

from vdpad.daemon.operations.operation import Operation, RestoreRequest
from vdpad.daemon.records.owners import NOBODY, Owners
from vdpad.daemon.targets.lent import lent_by
from vdpad.service.refusal import Kind, Refusal


def owners_again(owners: Owners, wanted: RestoreRequest) -> Owners:
    """Whose an operation is that may be prepared again: nobody's is the finder's."""
    return wanted.owners if owners == NOBODY else owners


def refuse_another(wanted: RestoreRequest, digest: str, owners: Owners, known: str) -> None:
    """Refuses a request for what is another user's, or was another wanted."""
    wanted.requester.check(owners)
    if known != digest:
        what = "another state or target"
    elif wanted.owners.committer not in (None, owners.committer):
        is_named = owners.committer is not None
        what = f"another committer, uid {owners.committer}" if is_named else "no committer"
    else:
        return
    raise Refusal(
        Kind.CONFLICT, f"this migration is known with {what}; give it another name", digest=known
    )


def refuse_another_ring(operation: Operation, fds: list[int]) -> None:
    """Refuses what would be told that its ring was used, and was not."""
    if not fds or operation.lent is None:
        return
    if lent_by(fds) != operation.lent:
        raise Refusal(
            Kind.CONFLICT,
            f"this migration's commit was begun on another ring ({operation.lent}), and nothing "
            "was done with this one; prepare the state under another name",
            digest=operation.details.digest,
        )
