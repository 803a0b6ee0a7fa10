"""The relay against a model of all who touch its queue, and against itself with a rule broken."""

import pytest

from tests.backend.relay.model.board import Wrong
from tests.backend.relay.model.machine import run
from tests.backend.relay.model.mutants import Changes
from tests.backend.relay.model.mutations import HARMLESS, MUTATIONS, Mutation
from tests.support.marks import in_bulk
from vdpad.errors import VdpadError

_STEPS = 1_000_000
_PARTS = 10
_FEW = 2


@pytest.mark.parametrize("part", [*range(_FEW), *in_bulk(range(_FEW, _PARTS))])
def test_nothing_is_lost_or_unmarked_at_any_interleaving(part: int) -> None:
    run(Changes().mutant(), _STEPS // _PARTS, seed=part)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_each_rule_is_needed(mutation: Mutation) -> None:
    # The model finds it, or already the relay itself.
    with pytest.raises((Wrong, VdpadError)):
        run(mutation.mutant(), _STEPS, seed=0, **mutation.ways)


@pytest.mark.parametrize("mutation", HARMLESS, ids=str)
def test_what_no_rule_forbids_does_no_harm(mutation: Mutation) -> None:
    run(mutation.mutant(), _STEPS // _PARTS, seed=0, **mutation.ways)
