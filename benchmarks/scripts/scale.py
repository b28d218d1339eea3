"""Estimate throughput and cost with more GPUs and workers by a model.

    python benchmarks/scripts/scale.py

The model uses measured (`Measured`) and assumed (`Assumed`) figures; nothing is run. A step on n GPUs takes as long as
on one plus the averaging of gradients: a ring sends 2 (n - 1) / n times the gradients. This is an upper bound, because
DistributedDataParallel overlaps communication with the backward pass.
"""

from dataclasses import dataclass

GPUS = (1, 8, 64, 512)
WORKERS = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Measured:
    """Figures of benchmarks/README.md."""

    step_images: int = 64  # training_128px_gpu: a compiled step on one H100
    step_seconds: float = 64 / 970
    gradient_mb: float = 4 * (4.20 + 4.87)  # MODEL_CARD.md: millions of trained float32 weights, four bytes each
    discriminator_mb: float = 4 * 0.67  # four scales of hinge-gan, width 32
    swaps_per_s: float = 27.0  # many_files: small pictures, two shares on two CPU cores at work, 64 px model
    extracted_per_s: float = 50.3  # the same, by fsf extract


@dataclass(frozen=True)
class Assumed:
    """Assumptions, which could not be measured."""

    inside_gb_per_s: float = 450.0  # NVLink between the eight GPUs of a machine, one way (NVIDIA's data sheet)
    between_gb_per_s: float = 50.0  # 400 Gbit/s for each GPU between machines
    gpus_of_a_machine: int = 8
    latency_s: float = 20e-6  # of one of the 2 (n - 1) messages of a ring
    most_pairs: int = 1024  # of a batch, beyond which more pairs bring no fewer steps; the paper trains with 32
    storage_files_per_s: float = 5000.0  # that a file system serves to all workers together
    core_hour: float = 0.04  # dollars, about what clouds ask for a core of a general machine


def averaging(gpus: int, measured: Measured, assumed: Assumed) -> float:
    """Return the seconds to average the gradients of generator and discriminator."""
    if gpus == 1:
        return 0.0
    inside = gpus <= assumed.gpus_of_a_machine
    bandwidth = assumed.inside_gb_per_s if inside else assumed.between_gb_per_s
    megabytes = measured.gradient_mb + measured.discriminator_mb
    sent = 2 * (gpus - 1) / gpus * megabytes * 1e6 / (bandwidth * 1e9)
    return sent + 2 * 2 * (gpus - 1) * assumed.latency_s


def training(measured: Measured, assumed: Assumed) -> list[str]:
    """Return a table of images/s, efficiency and useful images/s for numbers of GPUs."""
    heads = ("GPUs", "pairs of a batch", "averaging, ms", "images/s", "efficiency", "useful images/s")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    one = measured.step_images / measured.step_seconds
    for gpus in GPUS:
        pairs = gpus * measured.step_images
        seconds = measured.step_seconds + averaging(gpus, measured, assumed)
        rate = pairs / seconds
        useful = rate * min(1.0, assumed.most_pairs / pairs)
        share = f"{100 * rate / (gpus * one):.0f} %"
        cells = (gpus, pairs, f"{1e3 * (seconds - measured.step_seconds):.1f}", f"{rate:,.0f}", share, f"{useful:,.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def files(per_s: float, assumed: Assumed) -> list[str]:
    """Return a table of pictures/hour, and of time and cost for a million, for numbers of workers with two cores."""
    heads = ("workers of two cores", "pictures/hour", "hours for a million", "core hours", "dollars")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for workers in WORKERS:
        rate = min(workers * per_s, assumed.storage_files_per_s)
        hours = 1e6 / rate / 3600
        core_hours = 2 * workers * hours
        cells = (f"{3600 * rate:,.0f}", f"{hours:.2g}", f"{core_hours:,.0f}")
        lines.append(f"| {workers} | {' | '.join(cells)} | {core_hours * assumed.core_hour:.2f} |")
    return lines


def main() -> None:
    """Print all tables: training, swapping, extraction."""
    measured, assumed = Measured(), Assumed()
    tables = (
        training(measured, assumed),
        files(measured.swaps_per_s, assumed),
        files(measured.extracted_per_s, assumed),
    )
    for table in tables:
        print("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
