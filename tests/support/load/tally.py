"""What came of many requests."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

_MAX_WRONG = 20


@dataclass
class Tally:
    """What came, told as JSON from process to process."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """By "method outcome"; of those that were as expected."""
    wrong: list[str] = field(default_factory=list)
    """What was not as expected; the first few."""
    wrong_total: int = 0
    refused: int = 0
    """Requests that were answered `overloaded` before they were looked at, and sent again."""
    latencies_us: dict[str, list[int]] = field(default_factory=dict)
    """By method: from the wish to send until the reply is here."""
    commit_us: list[int] = field(default_factory=list)
    """Of the reports of restores that went well, each once."""

    @property
    def requests(self) -> int:
        """How many were answered by what they said."""
        return self.outcomes.total() + self.wrong_total

    def add(self, other: "Tally") -> None:
        """Takes in another's."""
        self.outcomes += other.outcomes
        self.wrong = (self.wrong + other.wrong)[:_MAX_WRONG]
        self.wrong_total += other.wrong_total
        self.refused += other.refused
        for method, latencies in other.latencies_us.items():
            self.latencies_us.setdefault(method, []).extend(latencies)
        self.commit_us += other.commit_us

    def to_json(self) -> dict[str, Any]:
        """As its `of_json` takes it."""
        return vars(self)

    @classmethod
    def of_json(cls, told: dict[str, Any]) -> Self:
        """What another process told."""
        return cls(**{**told, "outcomes": Counter(told["outcomes"])})

    def took(self, method: str, us: int) -> None:
        """Takes down how long an answer took."""
        self.latencies_us.setdefault(method, []).append(us)

    def lose(self, what: str) -> None:
        """Counts an answer that never came."""
        self.wrong_total += 1
        self.wrong = [what, *self.wrong][:_MAX_WRONG]

    def judge(self, method: str, expected: str, outcome: str, reply: dict[str, Any]) -> None:
        """Counts an answer as right or wrong."""
        if outcome == expected:
            self.outcomes[f"{method} {outcome}"] += 1
            return
        self.wrong_total += 1
        if len(self.wrong) < _MAX_WRONG:
            self.wrong.append(f"{method}: expected {expected}, got {json.dumps(reply)[:600]}")
