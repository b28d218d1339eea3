"""`fsf swap`, `fsf extract`, `fsf verify`: pictures and videos, one or many."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fsframework.cli.options import DEVICE, FILE, MODEL, warn_of_broken_plugins
from fsframework.core.errors import UserError

if TYPE_CHECKING:
    from fsframework.utils.executors import Executor
    from fsframework.utils.shards import JobShard

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


@click.command()
@click.argument("source", required=False, type=FILE)
@click.argument("target", required=False, type=FILE)
@click.argument("out", required=False, type=FILE)
@click.option("--model", metavar="MODEL", help=f"What swaps: {MODEL}. By default the last.")
@click.option("--face", default="largest", show_default=True, metavar="largest|all|N", help="Which faces to swap.")
@click.option(
    "--map",
    "mappings",
    metavar="REFERENCE=SOURCE",
    multiple=True,
    help="Swap the person of a reference picture; repeat for others.",
)
@click.option("--preview", type=click.IntRange(1), metavar="N", help="Of a video, show N frames in a picture instead.")
@click.option("--shard", metavar="I/N", help="Do the I-th of N shares of many targets; all may run at the same time.")
@click.option(
    "--pairs",
    metavar="CSV",
    type=FILE,
    help="Swap many: a file with the columns source, target, name. A line without a source takes those of --map.",
)
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
    mappings: tuple[str, ...],
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

    Several people: fsf swap --map anna.jpg=bob.jpg --map eve.jpg=carl.jpg TARGET OUT.

    Results say that they are synthetic, by XMP, a signed C2PA manifest and an invisible watermark; `fsf verify` shows
    all three. The certificate that signs is made when it is first needed and stays on this machine; to sign by
    another, name its file and that of its key in FSF_C2PA_CERT and FSF_C2PA_KEY.

    A mask with options is written as in a recipe, such as --mask "{use: face-segmenter, weights: FILE}".

    Many at once: fsf swap --pairs FILE.csv -o DIR. Its targets may be pictures and videos, and --face says which of
    their faces a line's source replaces. Lines without a source, or a file without that column, take the sources of
    --map. Faces are numbered from 1, from left to right.
    """
    paths = [path for path in (source, target, out) if path is not None]
    if engine == "ray" and preview:
        raise click.UsageError("--engine ray goes with a folder of targets or --pairs.")
    executor, share, here = _shared_out(engine, workers, shard, device)
    if pairs is not None:
        if paths or folder is None or preview:
            raise click.UsageError("With --pairs FILE.csv give -o DIR, and no pictures.")
    elif folder is not None or len(paths) != (2 if mappings else 3):
        usage = "Give SOURCE TARGET OUT; --map REFERENCE=SOURCE, TARGET OUT; or --pairs FILE.csv, -o DIR."
        raise click.UsageError(usage)
    elif engine == "ray" and not paths[-2].is_dir():
        raise click.UsageError("--engine ray goes with a folder of targets or --pairs.")
    elif shard is not None and not paths[-2].is_dir():
        raise UserError(f"--shard shares out a folder or --pairs, and {paths[-2]} is one target; leave it out")
    from fsframework import (
        AssignmentFiles,
        PasteOptions,
        ProvenanceOptions,
        SwapOptions,
        load_swapper,
        pairs_jobs,
        target_jobs,
    )
    from fsframework.inference.jobs import parse_mapping

    pasting = PasteOptions(mask, colour, blend, keep)
    options = SwapOptions(ProvenanceOptions(not no_provenance, label, consent), preview)
    files = tuple(parse_mapping(text) for text in mappings)
    # Jobs are checked before the networks are loaded, which takes seconds.
    if pairs is not None and folder is not None:
        jobs = pairs_jobs(pairs, folder, AssignmentFiles(face, None, files), options)
    else:
        *sources, at, to = paths
        jobs = target_jobs(at, to, AssignmentFiles(face, sources[0] if sources else None, files), options)
    swapper = load_swapper(model, here, runtime, precision, pasting)
    context.exit(1 if swapper.swap_jobs(jobs, share, executor) else 0)


@click.command("extract")
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
    crew, share, here = _shared_out(engine, workers, shard, device)
    from fsframework.core.part import part
    from fsframework.data.extract import extract
    from fsframework.data.extract_faces import ExtractOptions
    from fsframework.data.webdataset import load_webdataset
    from fsframework.utils.device import pick_device

    if shards is not None:
        load_webdataset()  # or it would be missed at the end
    warn_of_broken_plugins()
    place = pick_device(here)
    finder, recogniser = part("detectors", detector).build(), part("identity-encoders", encoder).build()
    for each in (finder, recogniser):
        each.load()
        each.to(place).eval()
    wanted = ExtractOptions(size, smallest, score, sharpness, every, shards)
    made = extract(inputs, out, wanted, finder, recogniser, place, share, crew)
    if made.faces is None:
        click.echo(f"share {shard} is done; {out} is made by the last of all")
    else:
        click.echo(f"{made.faces} faces of {made.people} people: {out}")
    context.exit(1 if made.failed else 0)


def _shared_out(
    engine: str, workers: int | None, shard: str | None, device: str | None
) -> "tuple[Executor, JobShard, str | None]":
    """Who does many files, which of them, and what device this process needs.

    Raises click.UsageError if the options do not go together, UserError if Ray is missing or the share is none.
    """
    if engine == "plain" and workers is not None:
        raise click.UsageError("--workers goes with --engine ray.")
    if engine == "ray" and shard is not None:
        raise click.UsageError("--shard and --engine ray exclude each other: Ray shares out the files by itself.")
    from fsframework.utils.executors import SERIAL, RayExecutor
    from fsframework.utils.shards import WHOLE, JobShard

    share = WHOLE if shard is None else JobShard.parse(shard)
    return (RayExecutor(workers, device), share, "cpu") if engine == "ray" else (SERIAL, share, device)


@click.command()
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
    import fsframework as fsf

    reports = []
    failed = False
    for file in files:
        try:
            report = fsf.verify(file)
        except UserError as error:
            click.echo(error, err=True)
            failed = True
            continue
        failed |= report.verdict != "intact"
        reports.append(report.plain())
        if not as_json:
            click.echo(str(report))
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    context.exit(1 if failed else 0)
