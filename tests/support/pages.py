"""Tables of a Markdown page, as tests hold them against the code."""

import re


def table(page: str, *headings: str) -> list[list[str]]:
    """The cells of a page's one table with these columns."""
    head = f"| {' | '.join(headings)} |\n"
    assert page.count(head) == 1, headings
    _, _, below = page.partition(head)
    lines = below.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)
