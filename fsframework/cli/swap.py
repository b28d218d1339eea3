"""`fsf swap`, `fsf extract`, `fsf verify`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fsframework.cli.options import DEVICE, FILE, MODEL_OPTION, RUNTIME, THREADS, warn_of_broken_plugins
from fsframework.core.errors import UserError

if TYPE_CHECKING:
    from fsframework.utils.executors import Executor
    from fsframework.utils.shards import JobShard

ENGINE = click.option(
    "--engine",
    type=click.Choice(["plain", "ray"]),
    default="plain",
    show_default=True,
    help="Executor for many files: this process, or workers on a Ray cluster.",
)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="With --engine ray: number of workers. Default: one for each GPU, or for each CPU if there are no GPUs.",
)


@click.command()
@click.argument("source", required=False, type=FILE)
@click.argument("target", required=False, type=FILE)
@click.argument("out", required=False, type=FILE)
@MODEL_OPTION
@click.option(
    "--face",
    default="largest",
    show_default=True,
    metavar="largest|all|N",
    help="Target faces to swap; N counts from the left from 1.",
)
@click.option(
    "--map",
    "mappings",
    metavar="REFERENCE=SOURCE",
    multiple=True,
    help="Replace the person of a reference picture by a source; may be repeated.",
)
@click.option(
    "--preview",
    type=click.IntRange(1),
    metavar="N",
    help="Write a picture of N frames before and after, instead of a video.",
)
@click.option(
    "--shard", metavar="I/N", help="Process the I-th of N shards of many targets; shards may run in parallel."
)
@click.option(
    "--pairs",
    metavar="CSV",
    type=FILE,
    help="Swap many: a file with the columns source, target, name. Lines without a source use --map.",
)
@click.option("-o", "folder", metavar="DIR", type=FILE, help="Output folder of --pairs.")
@RUNTIME
@click.option(
    "--mask",
    default="hull",
    show_default=True,
    metavar="hull|landmarks|oval|NAME",
    help="Mask of the replaced pixels: the face's hull by five landmarks or dlib's 68, an oval, or a mask estimator.",
)
@click.option(
    "--colour",
    default="edge",
    show_default=True,
    metavar="edge|none|lab|histogram",
    help="Colour matching: one shift that fits the mask's edge, none, Lab mean and deviation, or histogram.",
)
@click.option(
    "--blend",
    default="alpha",
    show_default=True,
    metavar="alpha|poisson",
    help="Blending at the mask's edge: alpha, or Poisson blending first.",
)
@click.option(
    "--keep",
    default="nothing",
    show_default=True,
    metavar="nothing|occlusions|reconstruction-errors",
    help="Target pixels to keep inside the mask: occlusions, such as hair, glasses and hands, found by a segmentation "
    "network; or objects that the model cannot reconstruct, which takes a second pass.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "auto"]),
    default="fp32",
    show_default=True,
    help="Precision of the swapping networks. bf16 is faster on hardware with bfloat16 units, which auto detects. "
    "Swaps by the bundled models then differ by up to three grey levels.",
)
@click.option(
    "--encoder",
    default="auto",
    show_default=True,
    metavar="auto|x264|x265|svt-av1|NAME",
    help="Encoder of videos: auto is x264 for 8 bits per channel and x265 for more; NAME is FFmpeg's of a hardware "
    "encoder that works on this machine, such as h264_nvenc.",
)
@click.option(
    "--quality",
    type=int,
    metavar="CRF",
    help="Constant quality of videos, from 0 (best) to 51, for svt-av1 to 63. Default: nearly indistinguishable from "
    "the target: 18 for x264, 20 for x265, 25 for svt-av1.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is an existing file.")
@click.option(
    "--private-metadata",
    is_flag=True,
    help="Keep the place, serial numbers, the owner's name and maker notes of the target's metadata, too.",
)
@click.option("--label", is_flag=True, help="Write the word synthetic into a corner of each result.")
@click.option(
    "--consent", metavar="TEXT", help="Statement of consent (who agreed to what) for the manifest of the results."
)
@click.option("--no-provenance", is_flag=True, help="Omit manifest and watermark; the local ledger records this.")
@ENGINE
@WORKERS
@DEVICE
@THREADS
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
    runtime: Literal["auto", "torch", "openvino", "onnx"],
    mask: str,
    colour: str,
    blend: str,
    keep: str,
    precision: Literal["fp32", "bf16", "auto"],
    encoder: str,
    quality: int | None,
    overwrite: bool,
    private_metadata: bool,
    label: bool,
    consent: str | None,
    no_provenance: bool,
    engine: str,
    workers: int | None,
    device: str | None,
) -> None:
    """Swap the face of a picture into another picture, a video or a folder.

    SOURCE is a picture of the new face. TARGET is a picture, a video or a folder of them. OUT is the output file or
    folder. Videos keep their sound, subtitles, frame times and size. They keep 10 bits per channel and high dynamic
    range (PQ, HLG) where the encoder writes 10 bits. To resume an interrupted command, run it again. An existing file
    is replaced only with --overwrite; a folder of results is continued.

    GIF, animated WebP and APNG are videos, too: OUT ends in .gif, .webp, .png or .mp4. Pictures are written as .jpg,
    .png, .webp or .tif; PNG and TIFF keep 16 bits per channel. EXIF and resolution are kept, except thumbnails and
    what --private-metadata adds. In folders, results of formats that are only read, such as HEIC, get the suffix .png,
    of moving ones .webp, and of videos .mp4.

    Several people: fsf swap --map anna.jpg=bob.jpg --map eve.jpg=carl.jpg TARGET OUT.

    Results are marked as synthetic by XMP, a signed C2PA manifest and an invisible watermark. `fsf verify` shows all
    three. The signing certificate is created at first use and stays on this machine. To sign with another one, set
    FSF_C2PA_CERT and FSF_C2PA_KEY to the files of certificate and key.

    With --engine ray, and for one picture, --runtime auto is torch. OpenVINO's graphs are made once for each model and
    cached.

    A mask with options is written as in a recipe, such as --mask "{use: face-segmenter, weights: FILE}".

    Many at once: fsf swap --pairs FILE.csv -o DIR. Targets may be pictures and videos. A line's source replaces the
    faces that --face selects. Lines without a source, or a file without that column, use the sources of --map.
    """
    _check_execution(engine, workers, shard)
    paths = [path for path in (source, target, out) if path is not None]
    if engine == "ray" and preview:
        raise click.UsageError("--engine ray goes with a folder of targets or --pairs.")
    if pairs is not None:
        if paths or folder is None or preview:
            raise click.UsageError("With --pairs FILE.csv give -o DIR, and no pictures.")
    elif folder is not None or len(paths) != (2 if mappings else 3):
        usage = "Give SOURCE TARGET OUT; --map REFERENCE=SOURCE, TARGET OUT; or --pairs FILE.csv, -o DIR."
        raise click.UsageError(usage)
    elif engine == "ray" and not paths[-2].is_dir():
        raise click.UsageError("--engine ray goes with a folder of targets or --pairs.")
    elif shard is not None and not paths[-2].is_dir():
        raise UserError(f"--shard needs a folder or --pairs, and {paths[-2]} is one target; omit it")
    executor, job_shard, local_device = _execution(engine, workers, shard, device)
    from fsframework.utils.lazy import loading

    with loading():
        from fsframework import (
            AssignmentFiles,
            PasteOptions,
            ProvenanceOptions,
            SwapOptions,
            VideoOptions,
            load_swapper,
            pairs_jobs,
            target_jobs,
        )
        from fsframework.inference.jobs import parse_mapping

        pasting = PasteOptions(mask, colour, blend, keep)
        video = VideoOptions(encoder, quality)
        marking = ProvenanceOptions(not no_provenance, label, consent)
        options = SwapOptions(marking, preview, overwrite, True, video, private_metadata)
        files = tuple(parse_mapping(text) for text in mappings)
        # Jobs are checked before the networks are loaded, because loading takes seconds.
        if pairs is not None and folder is not None:
            jobs = pairs_jobs(pairs, folder, AssignmentFiles(face, None, files), options)
        else:
            *sources, target_path, out_path = paths
            assignment = AssignmentFiles(face, sources[0] if sources else None, files)
            jobs = target_jobs(target_path, out_path, assignment, options)
        # Workers have other processors, and results of all must be equal. For one picture, loading OpenVINO takes
        # longer than it saves.
        is_torch = runtime == "auto" and (engine == "ray" or jobs.is_one_picture)
        swapper = load_swapper(model, local_device, None if is_torch else runtime, precision, pasting)
    context.exit(1 if swapper.swap_jobs(jobs, job_shard, executor) else 0)


@click.command("extract")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=FILE)
@click.option("-o", "out", metavar="DIR", type=FILE, required=True, help="Output folder, which is created.")
@click.option(
    "--size", type=click.IntRange(32, 1024), default=256, show_default=True, help="Side of the crops in pixels."
)
@click.option(
    "--smallest", type=click.FloatRange(1), default=40, show_default=True, help="Minimum side of a face in pixels."
)
@click.option(
    "--score", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="Minimum score of the detector."
)
@click.option(
    "--sharpness", type=click.FloatRange(0), default=0, show_default=True, help="Minimum sharpness; 5 is blurred."
)
@click.option(
    "--every", type=click.FloatRange(0), default=1, show_default=True, help="Seconds between frames of videos."
)
@click.option("--detector", default="mtcnn", show_default=True, metavar="NAME", help="Face detector.")
@click.option(
    "--encoder",
    default="dlib-resnet",
    show_default=True,
    metavar="NAME",
    help="Identity encoder, which assigns faces to people.",
)
@click.option(
    "--shards",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Write webdataset shards (tar files) of COUNT crops.",
)
@click.option(
    "--shard", metavar="I/N", help="Process the I-th of N shards; the last one to finish assembles the result."
)
@ENGINE
@WORKERS
@DEVICE
@THREADS
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
    """Extract aligned face crops from pictures, videos and folders.

    The output is a crop of every face, in a folder for each person, and faces.csv with the source of each crop.
    Near-duplicates are written once. To train on it: --set data.use=face-folder --set data.root=DIR --set
    data.layout=aligned. For millions of crops use --shards, which recipes read in the same way.

    To resume an interrupted command, run it again; detected faces are cached beside DIR until it is complete.
    """
    _check_execution(engine, workers, shard)
    executor, job_shard, local_device = _execution(engine, workers, shard, device)
    from fsframework import ExtractOptions, extract

    warn_of_broken_plugins()
    options = ExtractOptions(size, smallest, score, sharpness, every, shards)
    result = extract(inputs, out, options, detector, encoder, local_device, job_shard, executor)
    if result.faces is None:
        click.echo(f"shard {shard} is done; the last shard to finish writes {out}")
    else:
        click.echo(f"{result.faces} faces of {result.people} people: {out}")
    context.exit(1 if result.failed else 0)


def _check_execution(engine: str, workers: int | None, shard: str | None) -> None:
    """Raise click.UsageError if the options of an execution exclude each other."""
    if engine == "plain" and workers is not None:
        raise click.UsageError("--workers goes with --engine ray.")
    if engine == "ray" and shard is not None:
        raise click.UsageError("--shard and --engine ray exclude each other: Ray distributes the files itself.")


def _execution(
    engine: str, workers: int | None, shard: str | None, device: str | None
) -> "tuple[Executor, JobShard, str | None]":
    """Return the executor, the shard, and the device of the networks in this process.

    Raises UserError if Ray is missing or the shard is invalid.
    """
    from fsframework.utils.executors import SERIAL, RayExecutor
    from fsframework.utils.shards import WHOLE, JobShard

    job_shard = WHOLE if shard is None else JobShard.parse(shard)
    return (RayExecutor(workers, device), job_shard, "cpu") if engine == "ray" else (SERIAL, job_shard, device)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list with an object for each file.")
@click.pass_context
def verify(context: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Show the provenance of pictures and videos, and whether they were altered.

    Each FILE gets a verdict. intact: its C2PA manifest matches the file. altered: it does not match. doubtful: it
    matches, but the certificate is not valid. unsigned: no manifest, but a watermark or XMP marks it as synthetic.
    unmarked: none of these. Then follow the manifest, its signer, XMP, the watermark, and the entries of this machine's
    ledger. Nothing is fetched from the network.

    Intact does not mean trustworthy: anybody can sign an altered file with a certificate of their own.

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
