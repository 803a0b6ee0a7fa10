"""Shares: one user may have much, and never all."""

from hypothesis import given
from hypothesis import strategies as st

from vdpad.service.users.shares import Shares, permits

ALICE, BOB = 1000, 1001


def most(shares: Shares, user: int) -> int:
    """How many single ones a user can take."""
    taken = 0
    while shares.take(user):
        taken += 1
    return taken


def test_who_is_alone_has_the_limit() -> None:
    assert most(Shares(256), ALICE) == 256


def test_those_that_come_later_find_some_left() -> None:
    shares = Shares(256)
    assert [most(shares, user) for user in range(8)] == [256, 85, 28, 10, 3, 1, 1, 0]


def test_what_is_given_back_may_be_taken_again() -> None:
    shares = Shares(9)
    assert (most(shares, ALICE), most(shares, BOB)) == (9, 3)
    shares.give_back(BOB, 3)
    assert most(shares, ALICE) == 0
    shares.give_back(ALICE, 9)
    assert most(shares, BOB) == 9


def test_a_limit_of_one_is_one_each_for_who_has_none() -> None:
    shares = Shares(1)
    assert [shares.take(ALICE), shares.take(ALICE), shares.take(BOB)] == [True, False, False]
    shares.give_back(ALICE)
    assert shares.take(BOB)


def test_nothing_is_kept_of_who_has_nothing() -> None:
    shares = Shares(4)
    for user in range(100):
        assert not shares.take(user, 5)
        assert shares.take(user, 4)
        shares.give_back(user, 4)
    assert not shares._by_user


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 100), st.booleans()), max_size=200),
)
def test_whatever_is_taken_a_newcomer_finds_a_piece_unless_many_took_all(
    limit: int, steps: list[tuple[int, int, bool]]
) -> None:
    shares, taken = Shares(limit), dict.fromkeys(range(5), 0)
    for user, amount, gives in steps:
        if gives and taken[user] >= amount:
            shares.give_back(user, amount)
            taken[user] -= amount
        elif not gives and shares.take(user, amount):
            taken[user] += amount
        everything = sum(taken.values())
        assert 2 * everything <= 3 * limit
        assert all(each <= limit for each in taken.values())
        # One alone leaves a third of all that there is.
        if sum(1 for each in taken.values() if each) == 1 and limit > 1:
            assert permits(limit, 0, everything)
