"""How numbers are written in the laboratory's sentences."""

from __future__ import annotations

import re
import textwrap


def minus(value: object) -> str:
    """The value with the sign that formulas have.

    >>> minus(-3), minus("1e-05")
    ('−3', '1e−05')
    """
    return str(value).replace("-", "−")


def number(value: float, digits: int = 5) -> str:
    """As short as it can be read.

    >>> number(3.0), number(0.5625), number(-1 / 3)
    ('3', '0.5625', '−0.33333')
    """
    return minus(f"{value + 0.0:.{digits}g}")  # + 0.0, as −0 is 0


def counted(count: int, noun: str) -> str:
    """
    >>> counted(1, "product"), counted(4, "product")
    ('1 product', '4 products')
    """
    return f"{count} {noun}" + "s" * (count != 1)


def listed(values: range) -> str:
    """
    >>> listed(range(9, 11)), listed(range(15, 18))
    ('9 or 10', '15 to 17')
    """
    return " or ".join(map(str, values)) if len(values) <= 2 else f"{values[0]} to {values[-1]}"


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """A paragraph in lines of `width` characters, all indented, that do not break within a formula."""
    glued = re.sub(r" ([−+=×]) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(glued, width, initial_indent=indent, subsequent_indent=indent)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
