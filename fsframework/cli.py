"""The command line, `fsf`. A command parses, calls one function, prints.

Everything that needs torch is imported inside the commands, so that help comes at once. A user's mistake ends with
exit status 1 and a line on standard error (2 for a mistake in the command itself), Ctrl-C with 130, SIGTERM with 143.
"""

import difflib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from fsframework.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from fsframework.recipe import Recipe

SETS = click.option(
    "--set", "sets", metavar="KEY=VALUE", multiple=True, help="Change one value, such as stages.0.batch_size=8."
)
DEVICE = click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N. By default the GPU, if there is one.")
FILE = click.Path(path_type=Path)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["plain", "ray"]),
    default="plain",
    show_default=True,
    help="Who does many files: this process, or workers of a Ray cluster.",
)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="With --engine ray: how many workers. By default one for each GPU, or each CPU where there are none.",
)
PROTOCOL = click.option(
    "--protocol", metavar="NAME|FILE", help="Measure as a protocol says, such as orl or lfw, instead of the recipe."
)
MODEL = "a run's folder, a model's file, or the name of an installed model"


def main() -> None:
    """Run `fsf` and leave the process."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(fsf.main(prog_name="fsf", standalone_mode=False))
    except UserError as error:
        click.echo(error, err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("fsf: interrupted", err=True)
        sys.exit(130)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"fsf: terminated\n")  # a handler must not enter Python's buffers, which may be in use
    raise SystemExit(128 + number)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fsframework", prog_name="fsf")
def fsf() -> None:
    """Train, measure and use face swappers.

    A recipe says what is trained, plugins bring the parts. `fsf plugins list` shows what is installed.
    """


@fsf.command()
@click.argument("recipe")
@SETS
@click.option("--out", metavar="DIR", type=FILE, help="The run's folder. By default runs/ and the recipe's name.")
@click.option("--resume", is_flag=True, help="Go on with the run that the folder holds.")
@click.option("--overwrite", is_flag=True, help="Replace the run that the folder holds.")
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), help="What is done about what is wrong with shards of data."
)
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard, too, into the run's folder.")
@DEVICE
def run(
    recipe: str,
    sets: tuple[str, ...],
    out: Path | None,
    resume: bool,
    overwrite: bool,
    on_error: str | None,
    tensorboard: bool,
    device: str | None,
) -> None:
    """Train a recipe, measure the result, write a report.

    RECIPE is a YAML file, or the name of a recipe that comes with fsf. Ctrl-C leaves a state that --resume goes on
    from exactly. Several processes, each with a GPU of its own where there are GPUs, share the training when torchrun
    starts them: torchrun --nproc-per-node 2 -m fsframework run RECIPE.
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    from fsframework.distributed import joined, leave
    from fsframework.evaluation import evaluate, rehearse, table
    from fsframework.recipe_check import loaded as checked
    from fsframework.report import write_report
    from fsframework.runs import Run, pick_device
    from fsframework.training import train
    from fsframework.training_board import check_installed

    if tensorboard:
        check_installed()
    _warn_of_broken_plugins()
    sets = (*sets, f"data.on_error={on_error}") if on_error else sets
    loaded, _ = checked(recipe, sets)  # networks that do not fit are found before anything is trained
    out, found = out or Path("runs") / loaded.name, pick_device(device)
    with joined(found) as world:
        if world.first:
            Run(loaded, out, found).check_place(resume, overwrite)
            if loaded.evaluation is not None:
                rehearse(loaded)  # what would stop it after the training stops it now
            opened = Run.open(loaded, out, resume=resume, overwrite=overwrite, device=str(found))
            click.echo(f"components from {_providers(loaded)}")
        world.wait()  # the others find a folder that is ready
        if not world.first:
            opened = Run(loaded, out, found)
        train(opened, world, tensorboard)
    if not world.first:
        leave()
    metrics = evaluate(opened) if loaded.evaluation is not None else None
    report = write_report(opened)
    if metrics is not None:
        _console().print(table(metrics))
    click.echo(f"report: {report}")


@fsf.command()
@click.argument("folder", metavar="RUN", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def status(folder: Path, as_json: bool) -> None:
    """Say where a run stands, while it trains or afterwards.

    RUN is its folder. Steps, rate, remaining time, the step from which --resume would go on, and the losses of the last
    line of its log are shown for each stage.
    """
    from fsframework.status import status, table

    found = status(folder)
    if as_json:
        click.echo(json.dumps(asdict(found) | {"folder": str(folder)}, indent=2))
    else:
        _console().print(table(found))


@fsf.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--model", "--run", "model", metavar="MODEL", help=f"What is measured: {MODEL}. By default the last.")
@click.option("--pairs", metavar="CSV|N", help="A list of pairs, or how many to draw; in place of the recipe's.")
@PROTOCOL
@SETS
@click.option("--against", metavar="COMMIT", help="With speed: time that commit's code beside today's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--save", metavar="FILE", type=FILE, help="Write JSON to a file, too, with the command and the machine.")
@click.option("--details", metavar="CSV", type=FILE, help="Write every pair's figures to a file, too.")
@DEVICE
def bench(
    names: tuple[str, ...],
    model: str | None,
    pairs: str | None,
    protocol: str | None,
    sets: tuple[str, ...],
    against: str | None,
    as_json: bool,
    save: Path | None,
    details: Path | None,
    device: str | None,
) -> None:
    """Measure a trained method, or the speed of the code.

    NAME is a benchmark; without one, those of the method's recipe measure. Change the evaluation by --set, such as
    --set evaluation.batch_size=8.

    `fsf bench speed` measures no method; its options are set in the same way, such as --set size=128 --set batch=4.
    """
    from fsframework.evaluation import bench, described, table
    from fsframework.evaluation_alone import measure, rows_table
    from fsframework.files import write_text
    from fsframework.models import DEFAULT
    from fsframework.protocols import Protocol
    from fsframework.recipe import is_alone

    _warn_of_broken_plugins()
    command = {"command": shlex.join(["fsf", *sys.argv[1:]])}
    shown: Callable[[dict[str, Any]], RenderableType]
    if model is None and len(names) == 1 and is_alone(names[0]):
        if pairs is not None or details is not None or protocol is not None:
            raise click.UsageError("--pairs, --protocol and --details go with benchmarks that measure a method.")
        asked = list(sets) + ([f"against={json.dumps(against)}"] if against else [])
        found = command | measure(names[0], asked, device)
        kept, shown = found, rows_table
    else:
        if against is not None:
            raise click.UsageError("--against goes with speed.")
        chosen = None if protocol is None else Protocol.load(protocol)
        found = bench(model or DEFAULT, list(names), _with_pairs(sets, pairs), device, details, chosen)
        kept, shown = command | described(found, device), table
    if save is not None:
        write_text(save, json.dumps(kept, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _console().print(shown(found))


@fsf.command()
@click.argument("methods", nargs=-1, required=True, metavar="MODEL...")
@click.option("--pairs", metavar="CSV|N", help="A list of pairs, or how many to draw; in place of the recipe's.")
@PROTOCOL
@SETS
@click.option("--out", metavar="DIR", type=FILE, default=Path("comparison"), show_default=True, help="For the results.")
@click.option("--save", metavar="FILE", type=FILE, help="Write the JSON to another file, too.")
@DEVICE
def compare(
    methods: tuple[str, ...],
    pairs: str | None,
    protocol: str | None,
    sets: tuple[str, ...],
    out: Path,
    save: Path | None,
    device: str | None,
) -> None:
    """Measure several methods beside each other.

    Each MODEL is a run's folder, a model's file, or the name of an installed model. All swap the same pairs and are
    judged by the same benchmarks: those of the first one's recipe, which --set changes. DIR gets comparison.html,
    comparison.json, and pictures of up to eight pairs.
    """
    if len(methods) < 2:
        raise click.UsageError("Name two methods or more.")
    import datetime

    from fsframework.comparison import compare
    from fsframework.comparison_table import table, write_page
    from fsframework.files import write_text
    from fsframework.protocols import Protocol

    _warn_of_broken_plugins()
    chosen = None if protocol is None else Protocol.load(protocol)
    found = compare(methods, out, _with_pairs(sets, pairs), device, chosen)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    kept = {"command": shlex.join(["fsf", *sys.argv[1:]]), "date": now, **found}
    for file in filter(None, [out / "comparison.json", save]):
        write_text(file, json.dumps(kept, indent=2) + "\n")
    write_text(out / "comparison.html", write_page(found, out))
    _console().print(table(found))
    click.echo(f"comparison: {out / 'comparison.html'}")


@fsf.command()
@click.argument("source", required=False, type=FILE)
@click.argument("target", required=False, type=FILE)
@click.argument("out", required=False, type=FILE)
@click.option("--model", metavar="MODEL", help=f"What swaps: {MODEL}. By default the last.")
@click.option("--face", default="largest", show_default=True, metavar="largest|all|N", help="Which faces to swap.")
@click.option(
    "--who", metavar="FILE=SOURCE", multiple=True, help="Swap the person of a reference picture; repeat for others."
)
@click.option("--preview", type=click.IntRange(1), metavar="N", help="Of a video, show N frames in a picture instead.")
@click.option("--shard", metavar="I/N", help="Do the I-th of N shares of a folder; all may run at the same time.")
@click.option("--pairs", metavar="CSV", type=FILE, help="Swap many: a file with the columns source, target, name.")
@click.option("-o", "folder", metavar="DIR", type=FILE, help="Where the results of --pairs go.")
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnx"]),
    help="What runs the networks. By default onnxruntime for models that end in .onnx, torch for others.",
)
@click.option(
    "--mask",
    default="oval",
    show_default=True,
    metavar="oval|landmarks|NAME",
    help="Which pixels are replaced: an oval, the hull of the target's landmarks, or what an estimator finds.",
)
@click.option(
    "--colour",
    default="edge",
    show_default=True,
    metavar="edge|none|lab|histogram",
    help="How colours are matched: one shift that fits the mask's edge, not at all, by mean and spread, by histogram.",
)
@click.option(
    "--blend",
    default="alpha",
    show_default=True,
    metavar="alpha|poisson",
    help="How the edge is made: the two are mixed there, or gradients are fitted first by Poisson's equation.",
)
@click.option(
    "--keep",
    default="nothing",
    show_default=True,
    metavar="nothing|occlusions",
    help="What of the target stays inside the mask: occlusions are what the generator cannot paint.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "auto"]),
    default="fp32",
    show_default=True,
    help="What the networks that swap compute in. bf16 is faster where the hardware multiplies it, and auto takes it "
    "there; swaps by the default model then differ by up to two grey levels.",
)
@click.option("--label", is_flag=True, help="Write the word synthetic into a corner of the results.")
@click.option("--consent", metavar="TEXT", help="Who agreed to what, for the manifest of the results.")
@click.option("--no-provenance", is_flag=True, help="Leave out manifest and watermark; the local register notes it.")
@ENGINE
@WORKERS
@DEVICE
@click.pass_context
def swap(
    context: click.Context,
    source: Path | None,
    target: Path | None,
    out: Path | None,
    model: str | None,
    face: str,
    who: tuple[str, ...],
    preview: int | None,
    shard: str | None,
    pairs: Path | None,
    folder: Path | None,
    runtime: Literal["torch", "onnx"] | None,
    mask: str,
    colour: str,
    blend: str,
    keep: str,
    precision: Literal["fp32", "bf16", "auto"],
    label: bool,
    consent: str | None,
    no_provenance: bool,
    engine: str,
    workers: int | None,
    device: str | None,
) -> None:
    """Put the face of one picture into another, a video or a folder.

    SOURCE says who. TARGET is the picture or the video that is changed, or a folder of them; OUT is written, or gets
    the results. Videos keep their sound, times and size. Work that was interrupted goes on when it is asked for again.

    Several people: fsf swap --who anna.jpg=bob.jpg --who eve.jpg=carl.jpg TARGET OUT.

    Results say that they are synthetic, by XMP, a signed C2PA manifest and an invisible watermark; `fsf verify` shows
    all three. The certificate that signs is made when it is first needed and stays on this machine; to sign by
    another, name its file and that of its key in FSF_C2PA_CERT and FSF_C2PA_KEY.

    A mask with options is written as in a recipe, such as --mask "{use: face-segmenter, weights: FILE}".

    Many at once: fsf swap --pairs FILE.csv -o DIR. Faces are numbered from 1, from left to right.
    """
    places = [place for place in (source, target, out) if place is not None]
    if engine == "ray" and (preview or pairs is not None):
        raise click.UsageError("--engine ray goes with a folder of targets.")
    _check_engine(engine, workers, shard)
    if pairs is not None:
        if places or folder is None or who or preview or shard:
            raise click.UsageError("With --pairs FILE.csv give -o DIR, and no pictures.")
    elif folder is not None or len(places) != (2 if who else 3):
        raise click.UsageError("Give SOURCE TARGET OUT; --who FILE=SOURCE, TARGET OUT; or --pairs FILE.csv, -o DIR.")
    from fsframework.conversion import Converter, check_face
    from fsframework.conversion_jobs import check_places, swap_places
    from fsframework.conversion_list import swap_pairs
    from fsframework.engines import PLAIN, Cluster
    from fsframework.models import for_runtime
    from fsframework.pasting import Pasting
    from fsframework.provenance import Marking
    from fsframework.shares import WHOLE, Shard

    crew = Cluster(workers, device) if engine == "ray" else PLAIN
    pasting = Pasting(mask, colour, blend, keep)
    marking = Marking(not no_provenance, label, consent)
    marking.check()  # before the networks are loaded, which takes seconds
    check_face(face)
    if pairs is not None and folder is not None:
        converter = Converter(for_runtime(model, runtime), device, pasting, precision)
        context.exit(1 if swap_pairs(converter, pairs, folder, face, marking) else 0)
    *sources, at, to = places
    check_places(at, to, [*sources, *who], preview, marking)
    share = WHOLE if shard is None else Shard.parse(shard)
    if shard is not None and not at.is_dir():
        raise UserError(f"--shard shares out a folder, and {at} is none; leave it out")
    if engine == "ray" and not at.is_dir():
        raise click.UsageError("--engine ray goes with a folder of targets.")
    here = "cpu" if engine == "ray" else device
    converter = Converter(for_runtime(model, runtime), here, pasting, precision)
    context.exit(1 if swap_places(converter, at, to, sources, face, who, preview, marking, share, crew) else 0)


@fsf.command("extract")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=FILE)
@click.option("-o", "out", metavar="DIR", type=FILE, required=True, help="The folder of the crops, which is made.")
@click.option(
    "--size", type=click.IntRange(32, 1024), default=256, show_default=True, help="Side of the crops in pixels."
)
@click.option("--smallest", type=click.FloatRange(1), default=40, show_default=True, help="Least side of a face.")
@click.option(
    "--score", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="Least score of the detector."
)
@click.option(
    "--sharpness", type=click.FloatRange(0), default=0, show_default=True, help="Least sharpness; 5 is blurred."
)
@click.option(
    "--every", type=click.FloatRange(0), default=1, show_default=True, help="Seconds between frames of videos."
)
@click.option("--detector", default="mtcnn", show_default=True, metavar="NAME", help="What finds faces.")
@click.option("--encoder", default="dlib-resnet", show_default=True, metavar="NAME", help="What says who is who.")
@click.option(
    "--shards",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Write tar files of COUNT crops, as webdataset does.",
)
@click.option("--shard", metavar="I/N", help="Do the I-th of N shares; the last to end puts all together.")
@ENGINE
@WORKERS
@DEVICE
@click.pass_context
def extract_faces(
    context: click.Context,
    inputs: tuple[Path, ...],
    out: Path,
    size: int,
    smallest: float,
    score: float,
    sharpness: float,
    every: float,
    detector: str,
    encoder: str,
    shards: int | None,
    shard: str | None,
    engine: str,
    workers: int | None,
    device: str | None,
) -> None:
    """Cut the faces out of pictures, videos and folders.

    DIR gets an aligned crop of every face, in a folder for each person, and faces.csv, which says where each came from.
    Crops that look alike are written once. Recipes train on it: --set data.use=face-folder --set data.root=DIR --set
    data.layout=aligned. Millions of crops are better in --shards, which recipes read in the same way.

    Work that was interrupted goes on when it is asked for again; what was found is kept beside DIR until then.
    """
    _check_engine(engine, workers, shard)
    from fsframework.engines import PLAIN, Cluster
    from fsframework.extraction import extract
    from fsframework.extraction_faces import Wanted
    from fsframework.plugins import part
    from fsframework.runs import pick_device
    from fsframework.shards import load_webdataset
    from fsframework.shares import WHOLE, Shard

    if shards is not None:
        load_webdataset()  # or it would be missed at the end
    _warn_of_broken_plugins()
    crew = Cluster(workers, device) if engine == "ray" else PLAIN
    share = WHOLE if shard is None else Shard.parse(shard)
    place = pick_device("cpu" if engine == "ray" else device)
    finder, recogniser = part("detectors", detector).build(), part("identity-encoders", encoder).build()
    for each in (finder, recogniser):
        each.load()
        each.to(place).eval()
    wanted = Wanted(size, smallest, score, sharpness, every, shards)
    made = extract(inputs, out, wanted, finder, recogniser, place, share, crew)
    if made.faces is None:
        click.echo(f"share {shard} is done; {out} is made by the last of all")
    else:
        click.echo(f"{made.faces} faces of {made.people} people: {out}")
    context.exit(1 if made.failed else 0)


@fsf.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, with an object for each file.")
@click.pass_context
def verify(context: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Show what pictures and videos say of themselves, and whether they were altered.

    Each FILE gets a verdict: intact (its C2PA manifest fits it), altered (it does not), doubtful (it does, but the
    certificate does not count), unsigned (no manifest, but a watermark or XMP says that it is synthetic), unmarked
    (nothing). Then follow what the manifest says, who signed it, XMP, the watermark, and what the register of this
    machine knows of it. Nothing is fetched from the network.

    Intact is no praise of who signed: anybody may sign what they altered, with a certificate of their own.

    The exit status is 0 if every file is intact, and 1 otherwise or if one cannot be read.
    """
    from fsframework.verification import lines
    from fsframework.verification import verify as verify_file

    reports = []
    failed = False
    for file in files:
        try:
            report = verify_file(file)
        except UserError as error:
            click.echo(error, err=True)
            failed = True
            continue
        failed |= report.verdict != "intact"
        reports.append(report.plain())
        if not as_json:
            click.echo("\n".join(lines(report)))
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    context.exit(1 if failed else 0)


@fsf.command("serve")
@click.option("--model", metavar="MODEL", help=f"What swaps: {MODEL}. By default the last.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; others reach it at 0.0.0.0.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Where to listen.")
@click.option(
    "--token",
    metavar="TEXT",
    envvar="FSF_SERVE_TOKEN",
    show_envvar=True,
    help="What requests must carry. Off this machine one is made if none is given.",
)
@DEVICE
def serve_swaps(model: str | None, host: str, port: int, token: str | None, device: str | None) -> None:
    """Swap faces in the browser, or over HTTP.

    The page takes two pictures, by mouse, finger or keyboard. /openapi.json describes the interface behind it, which
    other programs may use. By default only this machine reaches it; elsewhere requests must carry a token, which is in
    the address that is printed. Results are marked as those of `fsf swap` are.
    """
    _check_web("fsf serve", "serve")
    from fsframework.conversion import Converter
    from fsframework.models import for_runtime
    from fsframework.serve.app import serve

    _warn_of_broken_plugins()
    serve(lambda: Converter(for_runtime(model, None), device), host, port, token, click.echo)


@fsf.command("export")
@click.argument("model", metavar="MODEL")
@click.argument("out", metavar="FILE", type=FILE)
@SETS
def export_model(model: str, out: Path, sets: tuple[str, ...]) -> None:
    """Write a trained method as one file, which --model takes.

    MODEL is a run's folder, a model's file, or the name of an installed model. If FILE ends in .safetensors it gets the
    trained weights in half precision and the recipe. If it ends in .onnx it gets the whole swap of aligned crops, in
    single precision, for onnxruntime and other programs: from source and target, (B, 3, S, S) in [-1, 1], to swap. It
    is compared with torch before it is there. --set changes the recipe that goes with it, such as the places of the
    data.
    """
    from fsframework.models import export

    checked = export(model, out, sets)
    click.echo(f"model: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if checked is not None:
        batches = " and ".join(map(str, checked.batches))
        click.echo(f"onnxruntime's swaps are at most {checked.difference:.1e} from torch's, in batches of {batches}")


@fsf.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@SETS
@click.pass_context
def check(context: click.Context, recipes: tuple[str, ...], sets: tuple[str, ...]) -> None:
    """Find mistakes in recipes without training.

    Wrong keys and values are found, and networks that do not fit together. RECIPE is a YAML file or the name of a
    recipe that comes with fsf.
    """
    from fsframework.recipe_check import check_file

    _warn_of_broken_plugins()
    failed = False
    for recipe in recipes:
        try:
            click.echo(check_file(recipe, sets))
        except UserError as error:
            click.echo(error, err=True)
            failed = True
    context.exit(1 if failed else 0)


@fsf.group()
def study() -> None:
    """Ask people which method is best.

    As in FaceShifter's user study, people choose among the results of several methods: which looks most like the
    source, which is most like the target in pose, expression and lighting, and which is most realistic.
    """


@study.command("new")
@click.argument("methods", nargs=-1, required=True, metavar="MODEL...")
@click.option("-o", "folder", metavar="DIR", type=FILE, required=True, help="The study's folder, which is made.")
@click.option(
    "--trials", type=click.IntRange(1), default=30, show_default=True, help="Pairs to ask about, besides the checks."
)
@click.option("--pairs", metavar="CSV|N", help="A list of pairs, or how many to draw; in place of the recipe's.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the pairs and all orders.")
@SETS
@DEVICE
def new_study(
    methods: tuple[str, ...],
    folder: Path,
    trials: int,
    pairs: str | None,
    seed: int,
    sets: tuple[str, ...],
    device: str | None,
) -> None:
    """Swap pairs by all methods and write what a study needs.

    Each MODEL is a run's folder, a model's file, or the name of an installed model. All swap the same pairs, those of
    the first one's recipe, which --set changes. DIR gets the pictures, study.json, and consent.txt: what people agree
    to before they begin, to be edited.
    """
    from fsframework.study.new import make

    _warn_of_broken_plugins()
    command = shlex.join(["fsf", *sys.argv[1:]])
    made = make(methods, folder, trials, seed, _with_pairs(sets, pairs), device, command)
    checks = sum(trial.is_check for trial in made.trials)
    click.echo(f"study: {folder} ({trials} trials, {checks} attention checks)")
    click.echo(f"next: edit {folder / 'consent.txt'}, then: fsf study serve {folder}")


@study.command("serve")
@click.argument("folder", metavar="DIR", type=FILE)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; others reach it at 0.0.0.0.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Where to listen.")
def serve_study(folder: Path, host: str, port: int) -> None:
    """Show a study to people and keep their answers.

    DIR is what `fsf study new` made. The page is for browsers, large and small. Every answer is on the disk before it
    is confirmed, so the server may be stopped and started again at any time.
    """
    _check_web("fsf study serve", "study")
    from fsframework.study.server import serve

    serve(folder, host, port, click.echo)


@study.command("results")
@click.argument("folder", metavar="DIR", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--csv", "csv", metavar="FILE", type=FILE, help="Write every answer to a file, too.")
def study_results(folder: Path, as_json: bool, csv: Path | None) -> None:
    """Show what people chose.

    DIR is a study's folder, which may be served meanwhile. Of each question the share of each method is shown with its
    95 % interval, and how far people agree. Those who fail the attention checks are left out, and counted.
    """
    from fsframework.files import write_text
    from fsframework.study.results import answers_text, results, table

    found = results(folder)
    if csv is not None:
        write_text(csv, answers_text(folder))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _console().print(table(found))


@fsf.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Editors use it to complete and check recipes; it knows all installed components and their options.
    """
    from fsframework.reference import schema

    _warn_of_broken_plugins()
    click.echo(json.dumps(schema(), indent=2))


@fsf.group()
def plugins() -> None:
    """Show the components that plugins bring, and write new plugins."""


@plugins.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    metavar="KIND[,KIND]...",
    multiple=True,
    required=True,
    help="What it brings: detector, identity-encoder, attribute-encoder, generator, refiner, loss, dataset, estimator, "
    "benchmark.",
)
@click.option("--out", "folder", metavar="DIR", type=FILE, help="The package's folder. By default its name.")
def new_plugin(name: str, kinds: tuple[str, ...], folder: Path | None) -> None:
    """Write a new plugin NAME, such as fsf-demo.

    It is a Python package with a working component of each KIND, with tests, a README, and a recipe that uses it.
    Nothing is overwritten.
    """
    from fsframework.scaffold import write

    wanted = list(dict.fromkeys(_kind(word.strip(), "--kind") for words in kinds for word in words.split(",")))
    folder = folder or Path(name)
    for file in write(name, wanted, folder):
        click.echo(f"  {folder / file}")
    quoted = shlex.quote(str(folder))
    click.echo(f'next: pip install -e "{folder}[test]" && pytest {quoted} && fsf run {quoted}/recipe.yaml')


@plugins.command("list")
@click.argument("kind", required=False)
def list_components(kind: str | None) -> None:
    """List all components, or those of one KIND, such as losses."""
    from rich.table import Table
    from rich.text import Text

    from fsframework.plugins import KINDS, registry

    _warn_of_broken_plugins()
    table = Table("kind", "name", "plugin", "what it is", box=None, pad_edge=False)
    for each in KINDS if kind is None else [_kind(kind)]:
        for name, (cls, plugin) in sorted(registry().components[each].items()):
            first_line = (cls.__doc__ or "").strip().partition("\n")[0]
            table.add_row(*map(Text, (each, name, plugin, first_line)))
    _console().print(table)


@plugins.command("show")
@click.argument("kind")
@click.argument("name")
def show_component(kind: str, name: str) -> None:
    """Show what the component NAME of a KIND does, and its options."""
    import inspect

    from rich.table import Table
    from rich.text import Text

    from fsframework.plugins import component, registry
    from fsframework.reference import rows

    _warn_of_broken_plugins()
    plural = _kind(kind)
    cls = component(plural, name)
    plugin = registry().components[plural][name].plugin
    click.echo(f"{name} ({plural}, plugin {plugin} of {registry().distributions[plugin]})\n")
    click.echo(f"{inspect.cleandoc(cls.__doc__ or '')}\n")
    table = Table("option", "value", "default", "meaning", box=None, pad_edge=False)
    for row in rows(cls.Options):
        table.add_row(*map(Text, row._replace(default=row.default or "required")))
    _console().print(table if table.row_count else "No options.")


def _kind(word: str, place: str = "KIND") -> str:
    """A kind by its plural or singular. Raises click.BadParameter with a hint."""
    from fsframework.plugins import KINDS, SINGULAR

    known = {name: kind for kind in KINDS for name in (kind, SINGULAR[kind].replace(" ", "-"))}
    plain = word.lower().replace(" ", "-").replace("_", "-")
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(plain, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(KINDS)}."
    raise click.BadParameter(f"no kind is called {word}; {hint}", param_hint=place)


def _check_engine(engine: str, workers: int | None, shard: str | None) -> None:
    """Raise click.UsageError if options of who does many files do not go together."""
    if engine == "plain" and workers is not None:
        raise click.UsageError("--workers goes with --engine ray.")
    if engine == "ray" and shard is not None:
        raise click.UsageError("--shard and --engine ray exclude each other: Ray shares out the files by itself.")


def _check_web(command: str, extra: str) -> None:
    """Raise UserError if what serves pages is not installed."""
    from importlib.util import find_spec

    needed = ["fastapi", "uvicorn"] if extra == "study" else ["fastapi", "uvicorn", "python_multipart"]
    if any(find_spec(name) is None for name in needed):
        raise UserError(f'{command} needs FastAPI: pip install "fsframework[{extra}]"')


def _with_pairs(sets: tuple[str, ...], pairs: str | None) -> list[str]:
    """The overrides, with that of --pairs."""
    if pairs is None:
        return list(sets)
    return [*sets, f"evaluation.pairs={pairs if pairs.isdecimal() else json.dumps(pairs)}"]


def _warn_of_broken_plugins() -> None:
    from fsframework.plugins import registry

    for problem in registry().problems:
        click.echo(f"warning: {problem}", err=True)


def _providers(recipe: "Recipe") -> str:
    """The distributions whose code a recipe runs; of others than ours, what they bring."""
    from fsframework.plugins import GROUP, providers

    shown = [
        distribution if distribution.partition(" ")[0] == GROUP else f"{distribution} ({', '.join(brought)})"
        for distribution, brought in providers(recipe).items()
    ]
    return "; ".join(shown)


def _console() -> "Console":
    """For tables on standard output; wide where there is no terminal to fit."""
    from rich.console import Console

    settings: dict[str, Any] = {} if sys.stdout.isatty() else {"width": 160}
    return Console(highlight=False, markup=False, **settings)
