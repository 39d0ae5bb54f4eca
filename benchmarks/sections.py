"""The parts of pages that a measurement writes, between markers."""

from __future__ import annotations

import re

END = "<!-- measured: end -->"


def begin(command: str) -> str:
    """The marker before the section that a command writes."""
    return f"<!-- measured: `{command}` writes everything up to the next marker -->"


def replace_section(page: str, command: str, section: str) -> str:
    """Put a text between a command's markers.

    Raises:
        ValueError: there is not exactly one pair of them.
    """
    pattern = re.compile(f"{re.escape(begin(command))}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"a page needs one pair of markers for what `{command}` measures")
    return pattern.sub(lambda _: f"{begin(command)}\n\n{section}\n\n{END}", page)
