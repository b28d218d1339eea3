"""The pictures of a report: swaps beside what they were made of, and where the identity acts."""

import base64
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fsframework.evaluation_explained import ATTRIBUTES, INTERPOLATION
from fsframework.evaluation_samples import spread
from fsframework.images import is_marked, read_image, write_image
from fsframework.recipe import Recipe
from fsframework.report_html import Html, join, section, tag

LARGEST = 384  # pixels; larger pictures are shown smaller, so that a report stays small
KINDS = ("source", "target", "draft", "swap")

Row = dict[str, Path]  # the pictures of a pair by kind: KINDS, map_0, map_1, ...


def sample_rows(folder: Path) -> list[Row]:
    """The pictures that an evaluation left, by pair. An empty list if there are none."""
    rows: dict[str, Row] = {}
    for file in sorted(folder.glob("[0-9][0-9][0-9]_*.png")):
        number, _, kind = file.stem.partition("_")
        rows.setdefault(number, {})[kind] = file
    return list(rows.values())


def pair_names(file: Path, count: int) -> list[str]:
    """What the pairs of that many rows are called, by the list that the evaluation left; else just numbers."""
    names = []
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as text:
            lines = [line for line in csv.reader(text) if len(line) == 2][1:]
        names = [f"{lines[place][0]} → {lines[place][1]}" for place in (spread(len(lines)) if lines else [])]
    return names if len(names) == count else [f"pair {row + 1}" for row in range(count)]


def pictures(rows: Sequence[Row], names: Sequence[str], recipe: Recipe) -> Html:
    """The section with the swaps; a sentence says why if there are none."""
    if not rows:
        why = "There are no pictures: an evaluation leaves them here."
        return section("pictures", "Pictures", tag("p", why, class_="note"))
    parts = recipe.networks
    refined = any("draft" in row for row in rows)
    meaning = [
        ("source", "says who"),
        ("target", "says how: pose, expression, light, background"),
        *([("draft", "what the generator paints, before the refiner")] if refined else []),
        ("swap", f"the result, after {parts.refiner.name}" if refined and parts.refiner else "the result"),
    ]
    shown = "drafts and swaps" if refined else "swaps"
    return section(
        "pictures",
        "Pictures",
        tag("p", tag("strong", f"The {shown} below are synthetic images."), " Nobody was photographed like that. ",
            "The pairs are spread evenly over the evaluation's list; nobody picked the good ones."),
        tag("ul", [tag("li", tag("strong", kind), f": {text}") for kind, text in meaning]),
        tag("label", tag("input", type="checkbox", id="pixels"), " show the pixels", class_="pixels small"),
        tag("div", [_pair(row, name) for row, name in zip(rows, names, strict=True)], class_="pairs"),
    )  # fmt: skip


def _pair(row: Row, name: str) -> Html:
    kinds = [kind for kind in KINDS if kind in row]
    images = [_captioned(row[kind], f"{kind} of {name}", kind) for kind in kinds]
    strip = tag("div", images, class_="strip three" if len(kinds) == 3 else "strip")
    return tag("figure", strip, tag("figcaption", name), class_="card pair")


def mask_maps(rows: Sequence[Row], names: Sequence[str]) -> Html:
    """The section with the attention maps; nothing where the method has none."""
    mapped = [(row, name) for row, name in zip(rows, names, strict=True) if "map_0" in row]
    if not mapped:
        return Html("")
    levels = sum(kind.startswith("map_") for kind in mapped[0][0])
    ends = [tag("span", "0, dark: attributes decide"), tag("span", "1, bright: identity decides")]
    legend = tag("p", ends[0], tag("span", class_="ramp"), ends[1], class_="legend")
    return section(
        "masks",
        "Where the identity acts",
        tag("p", f"The masks Mᵏ of the generator's levels, 1 (coarsest) to {levels} (finest), as in figure 8 of the "
            "FaceShifter paper (arXiv:1912.13457). There, identity acts mostly at the low and middle levels. "
            "The number under a map is its mean."),
        legend,
        tag("div", [_levels(row, name, levels) for row, name in mapped], class_="stack"),
    )  # fmt: skip


def explained(folder: Path) -> Html:
    """The sections with what `fsframework.evaluation_explained` drew; nothing where it drew nothing."""
    meanings = {
        INTERPOLATION: (
            "Between two people",
            "Each target, swapped with people between two sources: their embeddings are interpolated on the sphere. "
            "All but the sources and the targets are synthetic images.",
        ),
        ATTRIBUTES: (
            "Who is shown alike",
            "Beside each target, for every level of the attribute maps from coarse to fine, the other face of the data "
            "set whose map is nearest. Coarse levels should agree in pose and outline, fine ones in colour and light. "
            "All are real pictures.",
        ),
    }
    sections = []
    for kind, (title, text) in meanings.items():
        file = folder / f"{kind}.png"
        if file.is_file():
            source = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
            sections.append(section(kind, title, tag("p", text), tag("img", src=source, alt=title)))
    return join(sections)


def _levels(row: Row, name: str, levels: int) -> Html:
    shown = [_captioned(row[kind], f"{kind} of {name}", kind) for kind in ("target", "swap") if kind in row]
    for level in range(levels):
        if (file := row.get(f"map_{level}")) is not None:
            mean = read_image(file).mean() / 255
            caption = tag("span", tag("strong", f"{level + 1}"), f" · {mean:.2f}")
            shown.append(_captioned(file, f"mask of level {level + 1} of {name}", caption, "map"))
    return tag("figure", tag("div", shown, class_="levels"), tag("figcaption", name), class_="card pair")


def _captioned(file: Path, alt: str, caption: str, look: str | None = None) -> Html:
    """A picture with a word below it."""
    content, side = _png(file)
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return tag(
        "figure", tag("img", src=source, alt=alt, width=side, height=side, class_=look), tag("figcaption", caption)
    )


def _png(file: Path) -> tuple[bytes, int]:
    """A square picture's file and its side, made smaller where it is large; the mark of synthetic pictures stays."""
    image = read_image(file)
    side = max(image.shape[:2])
    if side <= LARGEST:
        return file.read_bytes(), side
    small = cv2.resize(image, (LARGEST, LARGEST), interpolation=cv2.INTER_AREA)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.png"
        write_image(path, np.asarray(small), synthetic=is_marked(file))
        return path.read_bytes(), LARGEST
