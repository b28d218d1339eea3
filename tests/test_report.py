"""The report of a run: what it says, that it needs nothing else, and that nothing in a run can break it."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fsframework.core.registry import registry
from fsframework.media.image_io import is_marked, write_image
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.report.curves import curve, labels, running_mean, short
from fsframework.report.html import render
from fsframework.report.run_report import write_report

ROOT = Path(__file__).parents[1]

RECIPE = """\
name: toy
size: 64
data: {use: toy-data}
networks:
  identity: {use: toy-identity}
  attributes: {use: toy-attributes}
  generator: {use: toy-generator}
  refiner: {use: toy-refiner}
stages:
  - {name: first, train: [generator], losses: [{use: toy-loss, weight: 5}], optimizer: {lr: 1e-3},
     steps: 40, batch_size: 16, accumulate: 2}
  - {name: second, train: [refiner], losses: [{use: toy-loss}], optimizer: {lr: 1e-3}, steps: 10, batch_size: 4}
"""
MANIFEST = {
    "recipe": "toy",
    "date": "2031-05-04T09:08:07+00:00",
    "device": "imagined GPU",
    "versions": {"torch": "9.8.7", "timm": None},
    "commit": "0123456789ab-dirty",
}
TOP1 = {"unit": "%", "better": "higher", "meaning": "Found again."}
POSE = {"unit": "deg", "better": "lower", "meaning": "Turned away."}
JUDGE, OWN = "retrieval (judge: other)", "retrieval (own network)"


def png(grey: int) -> bytes:
    """A small picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(file, format="PNG")
    return file.getvalue()


def top1(value: float) -> dict[str, float]:
    return {"top1": value, "top1_low": value - 1, "top1_high": value + 1.5}


def metrics() -> dict[str, Any]:
    ways = {"without-refiner": (80.25, 70.0, 3.5), "copy-target": (0.0, 0.0, 0.0), "copy-source": (100.0, 100.0, 20.0)}
    baselines = {
        way: {OWN: top1(own), JUDGE: top1(judge), "pose-error": {"pose_deg": pose}}
        for way, (own, judge, pose) in ways.items()
    }
    return {
        "method": "toy",
        "benchmarks": {OWN: top1(90.123456), JUDGE: top1(71.987654), "pose-error": {"pose_deg": 4.567891}},
        "baselines": baselines,
        "pairs": 300,
        "failures": {label: {"method": 7, **dict.fromkeys(ways, 0)} for label in (OWN, JUDGE, "pose-error")},
        "compared": {OWN: 293, JUDGE: 293, "pose-error": 293},
        "own_network": [OWN],
        "metrics": {OWN: {"top1": TOP1}, JUDGE: {"top1": TOP1}, "pose-error": {"pose_deg": POSE}},
    }


class Page(HTMLParser):
    """What browsers see of a report; fails where elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.paragraphs: list[tuple[str, str, str | None, str]] = []  # section, p or li, class, text
        self.section = "header"
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag == "h2":
            self.section = dict(attrs)["id"] or ""
        if tag in ("p", "li"):
            self.paragraphs.append((self.section, tag, dict(attrs).get("class"), ""))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.style += data
        else:
            self.words.append(data)
            if "p" in self.open or "li" in self.open:
                *place, text = self.paragraphs.pop()
                self.paragraphs.append((*place, text + data))  # type: ignore[arg-type]

    def sentences(self, section: str, look: str | None = None, element: str = "p") -> list[str]:
        """List the texts of the paragraphs of a class in a section."""
        return [" ".join(text.split()) for *place, text in self.paragraphs if place == [section, element, look]]

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for element, attributes in self.elements if element == name]


@pytest.fixture(autouse=True)
def toy_plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "toy_plugin"))
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run with everything a report can show."""
    folder = tmp_path / "runs" / "toy"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "samples").mkdir()
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for stage in ("first", "second"):
        (folder / "checkpoints" / f"{stage}.safetensors").touch()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics()), encoding="utf-8")
    (folder / "pairs.csv").write_text("source,target\n" + "".join(f"who{n},how{n}\n" for n in range(15)))
    log(folder, [entry("first", step, 10.0 / step) for step in range(1, 41)])
    for row in range(8):
        for kind in ("source", "target", "coarse", "swap", "map_0", "map_1"):
            (folder / "samples" / f"{row:03}_{kind}.png").write_bytes(png(51 if kind == "map_1" else 0))
    return Run(Recipe.load(str(folder / "recipe.yaml")), folder, torch.device("cpu"))


def entry(stage: str, step: int, loss: float) -> dict[str, Any]:
    return {"stage": stage, "step": step, "losses": {"toy-loss": loss}, "images_per_s": 16.0, "data_share": 0.25}


def log(folder: Path, entries: list[Any]) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in entries), encoding="utf-8")


def read(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_the_report_is_in_the_run_and_says_what_was_run(run: Run, check_message: Callable[..., None]) -> None:
    assert write_report(run) == run.path / "report.html"
    page = read(run)
    text = page.text
    for part in ("toy-identity", "toy-attributes", "toy-generator", "toy-refiner", "toy-data", "64 px"):
        assert part in text
    (lead,) = page.sentences("header", "lead")
    for part in ("imagined GPU", "4 May 2031, 09:08 UTC", "0123456789ab-dirty"):
        assert part in lead
    assert "1 min 20 s" in lead  # 40 steps of 32 pairs, 16 a second
    check_message(lead)
    assert not page.sentences("header", "note")
    assert "torch 9.8.7" in text and "timm unknown" in text
    assert f"fsf bench --run {run.path}" in text and "accumulate: 2" in text
    assert [path.name for path in run.path.glob("*.html")] == ["report.html"]


def test_sections_come_in_order(run: Run) -> None:
    found = [section["id"] for section in read(run).all("h2")]
    assert found == ["pictures", "figures", "masks", "training", "environment", "recipe", "again", "use"]


def test_links_lead_to_places_that_exist_once(run: Run) -> None:
    page = read(run)
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(places)) == len(places)
    assert page.all("a") and {link["href"] for link in page.all("a")} <= {f"#{place}" for place in places}


def test_it_needs_nothing_else(run: Run) -> None:
    page = read(run)
    assert {element for element, _ in page.elements}.isdisjoint(["script", "link", "iframe", "object", "base", "form"])
    for _, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
        assert (attributes.get("href") or "#").startswith("#")
        assert attributes.keys().isdisjoint(["srcset", "poster", "action", "xlink:href"])
    assert "url(" not in page.style and "@import" not in page.style
    assert "http://" not in page.text and "https://" not in page.text
    policy = page.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert (policy["content"] or "").startswith("default-src 'none'; img-src data:;")


def test_pictures_are_there_with_words_for_those_who_cannot_see_them(
    run: Run, check_message: Callable[..., None]
) -> None:
    page = read(run)
    (about,) = page.sentences("pictures")
    check_message(about)
    alternatives = [image["alt"] for image in page.all("img")]
    assert len(alternatives) == 8 * 4 + 8 * 4  # source, target, coarse, swap; target, swap and two maps
    assert alternatives[:4] == [f"{kind} of who0 → how0" for kind in ("source", "target", "coarse", "swap")]
    assert alternatives[31] == "swap of who14 → how14"
    assert alternatives[34] == "mask of level 1 of who0 → how0"
    assert "2 · 0.20" in page.text  # the mean of the second map, 51 of 255
    (legend,) = page.sentences("masks", "legend")
    check_message(legend)


@pytest.mark.parametrize("damage", [None, "source,target\nonly,one\n", "", "source,target\n"])
def test_pairs_are_numbered_where_their_names_are_not_known(run: Run, damage: str | None) -> None:
    if damage is None:
        (run.path / "pairs.csv").unlink()
    else:
        (run.path / "pairs.csv").write_text(damage)
    assert read(run).all("img")[4]["alt"] == "source of pair 2"


def test_figures_are_those_of_the_metrics(run: Run, check_message: Callable[..., None]) -> None:
    page = read(run)
    exact = [float(value["value"] or "") for value in page.all("data")]
    assert exact == [71.987654, 70.0, 0.0, 100.0, 4.567891, 3.5, 0.0, 20.0, 90.123456, 80.25, 0.0, 100.0]
    assert "toy 72.0 71.0 to 73.5 7" in page.text  # value, interval, failed pairs
    assert "toy 4.57 7 without-refiner 3.50 0" in page.text
    assert "top1 % ↑" in page.text and "pose_deg ↓" in page.text
    assert "Found again." in page.text and "293 pairs" in page.text
    arrows = [attributes["title"] for attributes in page.all("abbr")]
    assert arrows == ["higher is better", "lower is better", "higher is better"]
    check_message("\n".join([*page.sentences("figures"), *page.sentences("figures", element="li")]))


def test_only_rivals_are_highlighted_and_the_own_network_comes_last_with_a_warning(
    run: Run, check_message: Callable[..., None]
) -> None:
    page = read(run)
    best = [value["value"] for value in page.all("data") if value.get("class") == "best"]
    assert best == ["71.987654", "3.5"]
    text = page.text
    (warning,) = page.sentences("figures", "note")
    check_message(warning)
    assert text.index(JUDGE) < text.index("pose-error") < text.index(OWN) < text.index(warning)
    assert text.count(warning) == 1


def test_without_a_rival_nothing_is_highlighted(run: Run, check_message: Callable[..., None]) -> None:
    (highlighted,) = read(run).sentences("figures", "soft")
    check_message(highlighted)
    found = metrics()
    del found["baselines"]["without-refiner"]
    (run.path / "metrics.json").write_text(json.dumps(found))
    page = read(run)
    assert not [value for value in page.all("data") if value.get("class") == "best"]
    assert not page.sentences("figures", "soft") and "without-refiner" not in page.text


def test_figures_that_cannot_be_said_are_dashes(run: Run) -> None:
    found = metrics()
    found["benchmarks"]["pose-error"] = {"pose_deg": None, "pose_deg_low": None, "pose_deg_high": None}
    (run.path / "metrics.json").write_text(json.dumps(found))
    assert "toy - 7 without-refiner 3.50 0" in read(run).text


UNKNOWN = json.dumps(metrics()).replace('"better": "lower"', '"better": "<script>"')


@pytest.mark.parametrize("content", ["{", "[]", "7", "{}", UNKNOWN], ids=["cut", "list", "number", "empty", "unknown"])
def test_damaged_metrics_are_named(run: Run, content: str, expect_error: Callable[..., Any]) -> None:
    (run.path / "metrics.json").write_text(content)
    try:
        json.loads(content)
        reason = {}
    except ValueError as error:  # Python's words change with versions
        reason = {str(error): "REASON"}
    with expect_error("metrics.json: ", hide=reason):
        write_report(run)


@pytest.mark.parametrize("lost", ["manifest.json", "metrics.json", "pairs.csv", "log.jsonl", "samples", "checkpoints"])
def test_every_part_may_be_missing(run: Run, lost: str, check_message: Callable[..., None]) -> None:
    (run.path / lost).rename(run.path.parent / lost)
    page = read(run)
    places = {
        "manifest.json": "environment",
        "metrics.json": "figures",
        "log.jsonl": "training",
        "samples": "pictures",
        "checkpoints": "header",
    }
    if lost in places:
        (note,) = page.sentences(places[lost], "note")
        check_message(note)
    assert "pair 8" in page.text or lost != "pairs.csv"
    assert "first is at step 40 of 40" in page.text or lost != "checkpoints"
    assert "masks" not in [heading["id"] for heading in page.all("h2")] or lost != "samples"


def test_a_run_that_has_only_begun(tmp_path: Path, check_message: Callable[..., None]) -> None:
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.replace("  refiner: {use: toy-refiner}\n", "").partition("  - {name: second")[0]
    )
    run = Run(Recipe.load(str(tmp_path / "recipe.yaml")), tmp_path, torch.device("cpu"))
    page = read(run)
    (note,) = page.sentences("header", "note")
    assert "fsf run" in note and "toy-refiner" not in page.text
    check_message(note)
    log(tmp_path, [entry("first", 10, 1.0)])
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "first", "st')
    (note,) = read(run).sentences("header", "note")
    assert "step 10 of 40" in note
    check_message(note)


def test_without_refiner_and_maps_there_are_three_pictures_a_pair(run: Run, check_message: Callable[..., None]) -> None:
    for file in run.path.glob("samples/*_coarse.png"):
        file.unlink()
    for file in run.path.glob("samples/*_map_*.png"):
        file.unlink()
    page = read(run)
    (about,) = page.sentences("pictures")
    check_message(about)
    assert len(page.all("img")) == 8 * 3
    assert "masks" not in [heading["id"] for heading in page.all("h2")]
    assert [box for box in page.all("div") if box.get("class") == "strip three"]


HOSTILE = "</title></style><script>alert(1)</script><img src=http://x onerror='y'>\"&amp;\ud800\x00"


def test_nothing_in_a_run_becomes_markup(run: Run) -> None:
    harmless = [element for element, _ in read(run).elements]
    run.recipe = run.recipe.model_copy(update={"name": HOSTILE})
    (run.path / "manifest.json").write_text(
        json.dumps({**MANIFEST, "device": HOSTILE, "date": HOSTILE, "commit": HOSTILE})
    )
    name = HOSTILE.replace("\ud800", "").replace("\x00", "").replace('"', '""')
    (run.path / "pairs.csv").write_text("source,target\n" + 15 * f'"{name}","{name}"\n', encoding="utf-8")
    found = json.loads(json.dumps(metrics()).replace("pose_deg", "KEY").replace("pose-error", "LABEL"))
    found["method"] = HOSTILE
    for holder in (
        found["benchmarks"],
        found["failures"],
        found["compared"],
        found["metrics"],
        *found["baselines"].values(),
    ):
        holder[HOSTILE] = holder.pop("LABEL")
    found["baselines"][HOSTILE] = found["baselines"].pop("copy-source")
    found["metrics"][HOSTILE]["KEY"] = {"unit": HOSTILE, "better": "lower", "meaning": HOSTILE}
    (run.path / "metrics.json").write_text(json.dumps(found))
    log(run.path, [{**entry("first", step, 1.0), "losses": {HOSTILE: 10.0 / step}} for step in range(1, 41)])
    page = read(run)
    assert page.text.count("<script>alert(1)</script>") > 20
    assert {element for element, _ in page.elements} <= set(harmless)
    assert len(page.all("img")) == harmless.count("img")
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    assert page.all("img")[0]["alt"] == "source of {0} → {0}".format(HOSTILE.replace("\ud800", "").replace("\x00", ""))


@pytest.mark.parametrize(
    "line",
    [
        [], 7, {}, {"stage": "first"}, {"stage": "first", "step": "x"}, {"stage": ["first"], "step": 41},
        {"stage": "first", "step": 41, "losses": [1]},
        {"stage": "first", "step": 41, "losses": {"toy-loss": "x", "b": None}},
        {"stage": "first", "step": float("nan"), "losses": {}},
        {"stage": "first", "step": 41, "images_per_s": 0, "data_share": float("nan")},
    ],
)  # fmt: skip
def test_odd_lines_of_the_log_do_no_harm(run: Run, line: Any) -> None:
    log(run.path, [*[entry("first", step, 1.0) for step in range(1, 41)], line])
    assert "1,280" in read(run).text  # images in 40 steps


def test_time_counts_what_was_logged(run: Run) -> None:
    log(run.path, [entry("first", step, 1.0) for step in (10, 20, 40)] + [entry("second", 10, 1.0)])
    text = read(run).text
    assert "first generator 40 of 40 1,280 1 min 20 s 16.0 25.0 %" in text
    assert "second refiner 10 of 10 40 2 s 16.0 25.0 %" in text  # 40 images, 16 a second: 2.5 s
    assert "weight 5" in text and "weight 1" in text


def test_large_pictures_are_made_smaller_and_stay_marked(run: Run, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    write_image(run.path / "samples" / "000_swap.png", image, synthetic=True)
    write_image(run.path / "samples" / "000_source.png", image, synthetic=False)
    images = {picture["alt"]: picture for picture in reversed(read(run).all("img"))}
    for kind, marked in (("swap", True), ("source", False)):
        picture = images[f"{kind} of who0 → how0"]
        assert picture["width"] == picture["height"] == "384"
        file = tmp_path / f"{kind}.png"
        file.write_bytes(base64.b64decode((picture["src"] or "").partition(",")[2]))
        assert is_marked(file) is marked


def drawn(figure: str) -> list[np.ndarray]:
    """Return the lines of a curve, as points (n, 2) in SVG units: the pale one if there is one, the strong one."""
    lines = [path["d"] or "" for path in Page(figure).all("path") if re.search(r"raw|accent", path["style"] or "")]
    return [np.array(re.findall(r"[ML] (\S+) (\S+)", line), dtype=float) for line in lines]


@pytest.mark.parametrize(
    "values",
    [
        [], [np.nan], [np.inf, -np.inf], [1.0], [0.0, 0.0], [1.0, np.nan, 2.0], [np.nan, 1e-320, 5e-324],
        [1e308, -1e308, 3.0], [1.0, 1.0 + 2**-52], [1e-300, 1e29], [-1e29, 1e29], [*np.linspace(1, 2, 999), np.nan],
        [-0.0, 1e-9],
    ],
)  # fmt: skip
def test_any_values_give_a_drawing_inside_its_frame(values: list[float]) -> None:
    figure = curve("loss", list(range(1, len(values) + 1)), values)
    finite = [value for value in values if abs(value) < 1e30]
    assert "nan" not in figure.lower() and "inf" not in figure.lower().replace("infinite", "").replace("not finite", "")
    assert ("not finite" in figure) == (len(finite) < len(values))
    assert ("<svg" in figure) == bool(finite)
    for points in drawn(figure):
        assert ((points >= 0) & (points <= [360, 180])).all()


def test_a_curve_shows_its_values() -> None:
    (line,) = drawn(curve("loss", [0, 50, 100], [0.0, 1.0, 4.0]))
    x, y = line.T
    assert x.tolist() == [46, 199, 352]
    np.testing.assert_allclose((y[0] - y[1]) / (y[0] - y[2]), 0.25, atol=0.01)


def test_the_axis_is_logarithmic_over_more_than_two_decades_of_positive_values() -> None:
    def middle(values: list[float]) -> float:
        y = drawn(curve("loss", [1, 2, 3], values))[-1][:, 1]
        return float((y[0] - y[1]) / (y[0] - y[2]))

    np.testing.assert_allclose(middle([1.0, 100.0, 10000.0]), 0.5, atol=0.01)
    assert middle([1.0, 10.0, 99.0]) < 0.1
    assert middle([-1.0, 100.0, 10000.0]) < 0.02
    page = Page(curve("loss", [1, 2, 3], [1.0, 100.0, 10000.0]))
    assert page.text.startswith("loss last 10k") and page.text.endswith("1 10 100 1000 10k")


def test_long_curves_are_thinned_and_keep_their_peaks() -> None:
    values = np.random.default_rng(0).random(50_000)
    values[31_234] = 5.0
    raw, smooth = drawn(curve("loss", list(range(50_000)), values.tolist()))
    assert len(raw) <= 600 and len(smooth) == 300
    highest = raw[raw[:, 1].argmin()]
    np.testing.assert_allclose(highest[0], 46 + 306 * 31_234 / 49_999, atol=0.1)
    assert np.ptp(smooth[:, 1]) < 5 < np.ptp(raw[:, 1])


def test_running_mean_equals_a_plain_one() -> None:
    values = np.random.default_rng(0).random(103)
    half = 103 // 25 // 2
    plain = [values[max(0, place - half) : place + half + 1].mean() for place in range(103)]
    np.testing.assert_allclose(running_mean(values), plain)
    np.testing.assert_allclose(running_mean(values[:20]), values[:20])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (0.30000000000000004, "0.3"), (12.0, "12"), (-3.14159, "-3.14"), (99.99, "100"),
        (3400.0, "3400"), (50_000.0, "50k"), (512_345.0, "512.3k"), (1e6, "10⁶"), (2.5e-7, "2.5·10⁻⁷"),
        (-1e-4, "-1·10⁻⁴"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def ticks(values: list[float]) -> list[str]:
    """Return the labels of a curve's upright axis, which follow those of the level one."""
    page = Page(curve("", list(range(1, len(values) + 1)), values))
    flat = [text for text in page.all("text") if "middle" in (text["style"] or "")]
    return page.text.split()[-(len(page.all("text")) - len(flat)) :]


def test_ticks_are_round_and_told_apart() -> None:
    assert ticks([0.03, 0.47]) == ["0.1", "0.2", "0.3", "0.4"]
    assert ticks([0.0, 3400.0]) == ["0", "1000", "2000", "3000"]
    assert ticks([0.01, 10.0]) == ["0.01", "0.1", "1", "10"]
    assert 2 <= len(ticks([1e-29, 1e29])) <= 6
    assert len(set(ticks([0.6931, 0.69311]))) == len(ticks([0.6931, 0.69311])) > 2
    assert labels([0.1, 0.2]) == ["0.1", "0.2"]
    assert labels([0.6931, 0.6932]) == ["0.6931", "0.6932"]


def test_a_drawing_is_the_same_whenever_it_is_made() -> None:
    values = np.random.default_rng(0).random(100).tolist()
    assert curve("loss", list(range(100)), values) == curve("loss", list(range(100)), values)


def test_values_are_escaped() -> None:
    text = render("curve.html", title="1 < 2 & \"3\" '4'", last="\ud800\x07\t\n", note="", drawing=None)
    assert "<strong>1 &lt; 2 &amp; &#34;3&#34; &#39;4&#39;</strong>" in text
    assert '<span class="soft">??\t\n</span>' in text
