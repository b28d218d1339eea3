"""Render self-contained HTML pages from the Jinja2 templates in report/templates, with escaped values."""

import base64
import datetime
import json
import re
import shlex
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fsframework.utils.progress import in_words

FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f]")  # control characters are invalid in HTML


def render(template: str, **values: Any) -> Markup:
    """Render a template, and return the text as markup.

    Characters that are invalid in UTF-8 or HTML become question marks.
    """
    text = _environment().get_template(template).render(values)
    return Markup(FORBIDDEN.sub("?", text.encode("utf-8", "replace").decode("utf-8")))


@cache
def _environment() -> Environment:
    loader = PackageLoader("fsframework.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"day": _day, "in_words": in_words, "plain": plain, "quote": shlex.quote}
    return environment


def plain(value: object) -> str:
    """Return a value of a JSON file as a short text."""
    if isinstance(value, str):
        return value
    return "unknown" if value is None else json.dumps(value)


def number(value: object) -> float | None:
    """Return a number of a JSON file, NaN and infinity included, or None for another value."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def png_address(content: bytes) -> str:
    """Return a PNG file's content as a `data:` URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _day(date: object) -> str:
    """Return a date of a manifest in words, or other values unchanged."""
    try:
        moment = datetime.datetime.fromisoformat(plain(date))
    except ValueError:
        return plain(date)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".strip()
