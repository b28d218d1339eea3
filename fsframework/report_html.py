"""HTML made of Python values, which are escaped unless they say otherwise.

`tag` writes every element with its end, so what is made of it is balanced; a text becomes markup only by `Html`.
"""

import html
import json
from collections.abc import Iterable

from fsframework.report_style import STYLE

VOID = frozenset(["img", "input", "meta"])


class Html(str):
    """Markup, which `tag` takes as it is; every other text is escaped."""


def tag(name: str, /, *inside: str | Iterable[str], **attributes: str | float | None) -> Html:
    """An element, such as `tag("td", "a < b", class_="number")`.

    Parameters
    ----------
    name:
        Of the element.
    inside:
        Texts, markup, or several of them in an iterable.
    attributes:
        By name, `-` written as `_`, with another `_` behind names that Python keeps for itself; None leaves one out.
    """
    written = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    start = f"<{name}{''.join(written)}>"
    if name in VOID:
        return Html(start)
    return Html(f"{start}{join(inside)}</{name}>")


def join(parts: Iterable[str | Iterable[str]], between: str = "") -> Html:
    """Texts and markup in a row, texts escaped."""
    flat = (part if isinstance(part, str) else join(part) for part in parts)
    return Html(between.join(part if isinstance(part, Html) else escape(part) for part in flat))


def escape(text: str) -> str:
    """A text from anywhere as HTML; what UTF-8 and HTML cannot hold becomes a question mark."""
    known = text.encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join("?" if ord(sign) < 32 and sign not in "\n\t" else sign for sign in known))


def section(name: str, heading: str, *inside: str | Iterable[str]) -> Html:
    """A section with a heading that links can reach."""
    return tag("section", tag("h2", heading, id=name), *inside)


def scrolling(table: Html, label: str) -> Html:
    """A table that moves sideways by itself where the screen is narrow, by keys too."""
    return tag("div", table, class_="scrolling", tabindex=0, role="region", aria_label=label)


def plain(value: object) -> str:
    """A value of a JSON file as a short text."""
    if isinstance(value, str):
        return value
    return "unknown" if value is None else json.dumps(value)


def number(value: object) -> float | None:
    """A number of a JSON file, or None for whatever else stands there. NaN and infinity are numbers."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def page(title: str, body: Html) -> str:
    """The whole file. Its policy lets browsers load nothing and run nothing, whatever the body holds."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
