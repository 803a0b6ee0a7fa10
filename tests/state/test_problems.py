"""Problems by path, with bounds on what a sender can make us repeat."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from vdpad.state.problems import Problem, invalid, problems_of, summary


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    number: int = 0


def _refusal(raw: dict[str, object]) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        _Strict.model_validate(raw)
    return refused.value


def test_a_validator_s_places_codes_and_sentences_are_kept() -> None:
    error = invalid((("a", 3), "too-much", "4 {x} of 3"), ((), "odd", "it is odd"))
    assert problems_of(error) == [
        Problem("a.3", "too-much", "4 {x} of 3"),
        Problem("", "odd", "it is odd"),
    ]


def test_the_leading_parts_of_a_path_can_be_left_out() -> None:
    error = invalid((("params", "state", "mac"), "x", "y"))
    assert problems_of(error, below=1)[0].path == "state.mac"


def test_an_unknown_key_has_a_code_of_its_own() -> None:
    (problem,) = problems_of(_refusal({"more": 1}))
    assert (problem.path, problem.code) == ("more", "unknown-key")


def test_pydantic_s_codes_are_written_with_hyphens() -> None:
    (problem,) = problems_of(_refusal({"number": "1"}))
    assert (problem.path, problem.code) == ("number", "int-type")


def test_a_path_of_the_sender_s_making_is_cut() -> None:
    (problem,) = problems_of(_refusal({"k" * 100_000: 1}))
    assert len(problem.path) <= 201
    assert problem.path.endswith("…")


def test_a_path_holds_nothing_that_a_terminal_obeys() -> None:
    (problem,) = problems_of(_refusal({"a\x1b[2J\nb\u202e": 1}))
    assert problem.path == "a?[2J?b?"


def test_a_long_message_is_cut() -> None:
    (problem,) = problems_of(invalid(((), "long", "m" * 100_000)))
    assert len(problem.message) <= 300


def test_many_problems_are_cut_and_counted() -> None:
    problems = problems_of(_refusal({f"key{n}": 1 for n in range(1000)}))
    assert len(problems) == 65
    assert problems[-1] == Problem("", "more", "936 more problems are not shown")


def test_as_many_problems_as_are_shown_are_not_cut() -> None:
    problems = problems_of(_refusal({f"key{n}": 1 for n in range(64)}))
    assert {problem.code for problem in problems} == {"unknown-key"}
    assert len(problems) == 64


def test_a_summary_tells_the_first_and_counts_the_others() -> None:
    one, other = Problem("a", "x", "wrong"), Problem("b", "x", "worse")
    assert summary([one]) == "a: wrong"
    assert summary([one, other, other]) == "a: wrong (and 2 more problems)"
