"""Who asks, and what he may have to do with.

An operation belongs to the user who prepared it, and to its committer where he named one: a VMM's
user, for whom an orchestrator prepares. Both may do with it whatever there is to be done, and so
may an operator. Nobody else learns more of it than that its migration's name is taken, and by
`busy` that it has a device. Who prepares it again does it for the same two.

All who have a key for UDP are one user (ANOTHER_HOST). What an older vdpad wrote down is nobody's,
and left to operators; where it may be prepared again, anybody may do that.
"""

from dataclasses import dataclass

from vdpad.daemon.records.owners import Owners
from vdpad.service.refusal import Kind, Refusal


class NotYours(Refusal):
    """An operation that belongs to another user than the one who asks."""

    def __init__(self, requester: "Requester") -> None:
        super().__init__(
            Kind.NOT_ALLOWED,
            f"this migration was prepared by another user, and not for {requester}; have it "
            "prepared with your uid as `committer`, or use another name (setting operators)",
        )


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks: a user, and whether as an operator."""

    user: int
    """A uid, or ANOTHER_HOST."""
    is_operator: bool = False

    def __str__(self) -> str:
        return "other hosts" if self.user < 0 else f"uid {self.user}"

    def may(self, owners: Owners) -> bool:
        """Whether he may have to do with an operation of these."""
        return self.is_operator or self.user in (owners.user, owners.committer)

    def owning(self, committer: int | None = None) -> Owners:
        """Whose an operation is that he prepares, for a uid where one is named."""
        return Owners(self.user, committer)

    def check(self, owners: Owners) -> None:
        """Refuses what is another's.

        Raises:
            NotYours
        """
        if not self.may(owners):
            raise NotYours(self)
