"""Swap pictures and films of every kind that people bring, and judge each result by what is right.

    python benchmarks/scripts/real_files.py --lfw data/lfw/val.zip --save

Inputs are made by scripts from the faces of installed packages: jump cuts, turned heads, trimmed films, odd sound
tracks, colour profiles, animations, damaged files, wrong arguments and others (`file_kinds`). Each is given to
`fsf swap` in this process, with the fast model; pictures also to `fsf serve` and the Python interface. `right` counts
results whose faces, pixels away from them, frames, times, sounds and tags are as they should be, `refused with words`
refusals in a line, `unneeded` those where a result was expected, `wrong` all others.
"""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from figures import report
from file_kinds import broken, heads, pictures, sound, streams, who
from file_kinds.case import Bench, Case, Maker
from file_kinds.interfaces import Interface, every_interface
from file_kinds.people import Cast

from fsframework.api.swapping import load_swapper
from fsframework.utils.progress import progress

FAST_MODEL = "faceshifter-lfw-64"
PROFILES = Path("/usr/share/color/icc")
KINDS: dict[str, list[Maker]] = {
    **who.KINDS,
    **heads.KINDS,
    **sound.KINDS,
    **streams.KINDS,
    **pictures.KINDS,
    **broken.KINDS,
}


def judged(case: Case, interface: Interface) -> dict[str, Any]:
    """Run a case by an interface and return its verdict with the reasons."""
    began = time.monotonic()
    outcome = interface.run(case)
    verdict, problems = "wrong", []
    is_partial = outcome.status == 1 and re.search(r"^\d+ of \d+ files are in ", outcome.text, re.MULTILINE)
    if outcome.status != 0 and not is_partial:
        if problems := interface.refusal_problems(outcome):
            verdict = "wrong"
        else:
            verdict = "unneeded" if case.expected == "result" else "refused"
            problems = [outcome.text.strip().splitlines()[-1]]
    elif case.expected == "refusal":
        problems = ["there is a result, where a refusal is right"]
    else:
        try:
            problems = case.check(outcome)
        except Exception as error:  # such as a result that cannot be read
            problems = [f"the result cannot be checked: {type(error).__name__}: {error}"]
        verdict = "wrong" if problems else "right"
    return {"name": case.name, "verdict": verdict, "problems": problems, "seconds": round(time.monotonic() - began, 1)}


def cases_of(bench: Bench, makers: list[Maker]) -> Iterator[Case]:
    for maker in makers:
        yield from maker(bench)


def shown(row: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in row.items()}


@click.command()
@click.option("--only", metavar="TEXT", help="Try only kinds whose names contain this text.")
@click.option("--lfw", type=click.Path(path_type=Path), help="A zip of person/picture.jpg, for strangers.")
@click.option("--profiles", type=click.Path(path_type=Path), default=PROFILES, help="Folder of colour profiles (ICC).")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Folder for the inputs and results; else they are removed."
)
@click.option("--save", is_flag=True, help="Write benchmarks/results/real_files.json.")
def main(only: str | None, lfw: Path | None, profiles: Path, keep: Path | None, save: bool) -> None:
    """Swap inputs of all kinds and judge the results."""
    kinds = {name: makers for name, makers in KINDS.items() if only is None or only in name}
    if not kinds:
        raise click.UsageError(f"no kind contains {only!r}; there are: {'; '.join(KINDS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep
        folder.mkdir(parents=True, exist_ok=True)
        swapper = load_swapper(FAST_MODEL, "cpu", "torch")
        found = {file.name.lower(): file for file in sorted(profiles.rglob("*.ic[cm]"))}
        bench = Bench(folder, Cast.load(swapper, folder, lfw), found)
        rows, details = [], {}
        with every_interface(swapper) as interfaces, progress("trying", len(kinds), "kinds") as ticker:
            for name, makers in kinds.items():
                results: dict[str, list[dict[str, Any]]] = {interface.name: [] for interface in interfaces}
                for case in cases_of(bench, makers):
                    for interface in interfaces:
                        if interface.takes(case):
                            results[interface.name].append(judged(case, interface))
                            if results[interface.name][-1]["verdict"] in ("wrong", "unneeded"):
                                last = results[interface.name][-1]
                                click.echo(
                                    f"{name} | {interface.name} | {last['name']}: {last['verdict']}: {last['problems']}"
                                )
                details[name] = json.loads(json.dumps(results).replace(f"{folder}/", ""))  # messages name files
                rows += [counted(name, interface, each) for interface, each in results.items() if each]
                ticker.advance(note=name)
    report("real_files", [*rows, *totals(rows)], shown, "" if save else None, {"kinds": details})


def counted(kind: str, interface: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of the table."""
    verdicts = [result["verdict"] for result in results]
    refused = verdicts.count("refused") + verdicts.count("unneeded")
    return {
        "kind": kind,
        "by": interface,
        "tried": len(results),
        "right": verdicts.count("right"),
        "refused with words": refused,
        "of these unneeded": verdicts.count("unneeded"),
        "wrong": verdicts.count("wrong"),
    }


def totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of the rows, one for each interface."""
    sums: dict[str, dict[str, Any]] = {}
    for row in rows:
        total = sums.setdefault(row["by"], {"kind": "all", "by": row["by"]})
        for key in ("tried", "right", "refused with words", "of these unneeded", "wrong"):
            total[key] = total.get(key, 0) + row[key]
    return [*sums.values()]


if __name__ == "__main__":
    main()
