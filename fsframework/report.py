"""report.html: what a run did, made and measured, in one file that needs nothing else.

Everything is optional: a run that has only begun still gives a report of what there is. Pictures and curves are
inside the file; it loads nothing, runs nothing and can be sent to somebody.
"""

import datetime
import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsframework.errors import UserError
from fsframework.files import write_text
from fsframework.progress import in_words
from fsframework.report_html import Html, join, page, plain, section, tag
from fsframework.report_metrics import figures
from fsframework.report_pictures import explained, mask_maps, pair_names, pictures, sample_rows
from fsframework.report_training import Progress, progress_of, training
from fsframework.runs import Run


def write_report(run: Run) -> Path:
    """Write report.html into the directory of a run, in one step.

    Returns
    -------
    The file.

    Raises
    ------
    UserError
        The run's files are damaged, or the report cannot be written.
    """
    manifest = run.manifest() if (run.path / "manifest.json").is_file() else {}
    stages = progress_of(run)
    rows = sample_rows(run.path / "samples")
    names = pair_names(run.path / "pairs.csv", len(rows))
    masks = mask_maps(rows, names)
    body = join(
        [
            _header(run, manifest, stages, bool(masks)),
            tag(
                "main",
                pictures(rows, names, run.recipe),
                figures(_metrics(run)),
                masks,
                explained(run.path / "samples"),
                training(stages),
                _environment(manifest),
                _recipe(run),
                _commands(run, manifest),
                _responsibility(),
            ),
        ]
    )
    report = run.path / "report.html"
    write_text(report, page(f"{run.recipe.name} · report", body))
    return report


def _metrics(run: Run) -> dict[str, Any]:
    """What metrics.json holds, or nothing. Raises UserError if it is damaged."""
    file = run.path / "metrics.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}; measure again with `fsf run RECIPE --resume`") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: holds no figures; measure again with `fsf run RECIPE --resume`")
    return found


def _header(run: Run, manifest: Mapping[str, Any], stages: list[Progress], masks: bool) -> Html:
    recipe, parts = run.recipe, run.recipe.networks
    named = {kind: getattr(parts, kind) for kind in type(parts).model_fields}
    listed = [join([tag("strong", part.name), f" ({kind})"]) for kind, part in named.items() if part is not None]
    seconds = math.fsum(stage.seconds for stage in stages)
    sentence = [
        "A face swapper of " if parts.generator is not None else "A face recogniser: ",
        join(listed, ", "),
        f", {'trained on' if recipe.stages else 'which learns nothing, on'} {recipe.data.name} at {recipe.size} px",
        f" for {in_words(seconds)}" if seconds else "",
        f" on {plain(manifest['device'])}" if "device" in manifest else "",
        f", {_day(manifest['date'])}" if "date" in manifest else "",
        f", with the code of commit {plain(manifest['commit'])}" if manifest.get("commit") else "",
        ".",
    ]
    unfinished = [stage for stage in stages if not stage.finished]
    state = ""
    if unfinished:
        first = unfinished[0]
        at = f"is at step {first.done:,} of {first.stage.steps:,}" if first.done else "has not begun"
        resume = f"fsf run {_recipe_file(run)} --out {shlex.quote(str(run.path))} --resume"
        state = tag(
            "p", f"This run is not finished: {first.stage.name} {at}. Go on with ", tag("code", resume), class_="note"
        )
    links = {"pictures": "Pictures", "figures": "Figures", **({"masks": "Masks"} if masks else {})}
    links |= {"training": "Training", "environment": "Environment", "recipe": "Recipe", "again": "Do it again"}
    nav = tag("nav", [tag("a", text, href=f"#{name}") for name, text in links.items()], aria_label="Sections")
    return tag("header", tag("h1", recipe.name), tag("p", sentence, class_="lead"), state, nav)


def _day(date: object) -> str:
    """A date of a manifest for people; as it stands where it is none."""
    try:
        moment = datetime.datetime.fromisoformat(plain(date))
    except ValueError:
        return plain(date)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".strip()


def _environment(manifest: Mapping[str, Any]) -> Html:
    if not manifest:
        return section("environment", "Environment", tag("p", "The run left no manifest.", class_="note"))
    return section("environment", "Environment", _list(manifest))


def _list(values: Mapping[str, Any]) -> Html:
    """Names and values; mappings inside become lists inside."""
    inner = []
    for key, value in values.items():
        inner += [tag("dt", str(key)), tag("dd", _list(value) if isinstance(value, Mapping) else plain(value))]
    return tag("dl", inner)


def _recipe(run: Run) -> Html:
    about = "With every default written out."
    text = tag("pre", tag("code", run.recipe.dump_yaml()))
    return section("recipe", "Recipe", tag("details", tag("summary", "The whole recipe"), tag("p", about), text))


def _commands(run: Run, manifest: Mapping[str, Any]) -> Html:
    folder = shlex.quote(str(run.path))
    lines = [
        "# train, measure and report again",
        f"fsf run {_recipe_file(run)} --out {shlex.quote(f'{run.path}-again')}",
        "# measure this run again",
        f"fsf bench --run {folder}",
        "# put the face of one picture into another",
        f"fsf swap SOURCE.jpg TARGET.jpg OUT.png --model {folder}",
    ]
    commit = plain(manifest.get("commit") or "")
    changed = "The code had changes that this commit does not hold. " if commit.endswith("-dirty") else ""
    return section(
        "again",
        "Do it again",
        tag("pre", tag("code", "\n".join(lines))),
        tag(
            "p",
            changed,
            "The same code, versions, kind of machine and number of threads should give the same weights; others give "
            "similar ones. Where the data lie elsewhere, add --set, such as --set data.root=DIR.",
        ),
    )


def _recipe_file(run: Run) -> str:
    """The run's recipe as a word of a command."""
    return shlex.quote(str(run.path / "recipe.yaml"))


def _responsibility() -> Html:
    return section(
        "use",
        "Responsible use",
        tag(
            "p",
            "For research, measurement, and the detection of manipulated pictures. Every picture this software makes "
            "says in its metadata that it is synthetic (IPTC Digital Source Type), those in this report included; "
            "leave the mark in place. Swap faces only of people who agreed, and deceive nobody.",
        ),
    )
