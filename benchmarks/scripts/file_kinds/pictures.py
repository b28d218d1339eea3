"""Pictures in other colours, with transparency, with 16 bits, that move, in further formats; blending."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from films import make_film
from PIL import Image, ImageCms, ImageDraw

from file_kinds.case import Bench, Case, Check, Maker, Outcome, said
from file_kinds.look import film, picture, picture_check
from file_kinds.people import Scene, away, portrait_of
from file_kinds.sound import walk

PLAIN = ("--no-provenance",)
SRGB = ImageCms.createProfile("sRGB")
NAMES = ("a98.icc", "rommrgb.icc", "lstar-rgb.icc", "compatiblewithadobergb1998.icc", "ps_rgb.icc")
CMYK, GREY = "default_cmyk.icc", "default_gray.icc"
INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


def seen(file: Path) -> np.ndarray:
    """Return a picture in sRGB, by its profile if it has one: (H, W, 3) uint8."""
    with Image.open(file) as image:
        profile = image.info.get("icc_profile")
        if profile is None:
            return np.array(image.convert("RGB"))
        mode = image.mode if image.mode in ("CMYK", "L") else "RGB"
        shown = ImageCms.profileToProfile(image.convert(mode), io.BytesIO(profile), SRGB, INTENT, "RGB", flags=FLAGS)
        return np.array(shown)


def profiles(bench: Bench) -> Iterator[Case]:
    """Yield cases: colour profiles, which results keep with the colours away from the face."""
    whole = portrait_of(bench.cast.portrait, 60)
    image = Image.fromarray(whole.frame)
    for name in NAMES:
        if name not in bench.profiles:
            continue
        for suffix in (".png", ".jpg"):
            profile = bench.profiles[name].read_bytes()
            target = bench.place() / f"picture{suffix}"
            other = ImageCms.profileToProfile(image, SRGB, io.BytesIO(profile), INTENT, "RGB", flags=FLAGS)
            assert other is not None
            other.save(target, icc_profile=profile, quality=95)
            check = _coloured(bench, whole, target, profile)
            yield bench.swap(f"{name}, {suffix}", target, check, options=PLAIN, portable=True)
    if CMYK in bench.profiles:
        profile = bench.profiles[CMYK].read_bytes()
        for suffix, out in ((".jpg", ".png"), (".tif", ".png"), (".jpg", ".jpg")):
            target = bench.place() / f"print{suffix}"
            other = ImageCms.profileToProfile(image, SRGB, io.BytesIO(profile), INTENT, "CMYK", flags=FLAGS)
            assert other is not None
            other.save(target, icc_profile=profile, quality=95)
            check = _coloured(bench, whole, target, None)
            yield bench.swap(f"CMYK, {suffix} to {out}", target, check, out, PLAIN, portable=True)
    if GREY in bench.profiles:
        target = bench.place() / "grey.png"
        image.convert("L").save(target, icc_profile=bench.profiles[GREY].read_bytes())
        yield bench.swap("grey profile", target, _coloured(bench, whole, target, None), options=PLAIN, portable=True)
    for name, profile in (
        ("sRGB profile", ImageCms.ImageCmsProfile(SRGB).tobytes()),
        ("damaged profile", b"damaged" * 40),
    ):
        target = bench.place() / "picture.png"
        image.save(target, icc_profile=profile)
        yield bench.swap(name, target, picture_check(bench.cast, whole, [0], True), options=PLAIN, portable=True)


def _coloured(bench: Bench, whole: Scene, target: Path, profile: bytes | None) -> Check:
    """Return a check that colours away from the face are displayed as before, and of the face and the profile."""
    before = seen(target)

    def check(outcome: Outcome) -> list[str]:
        after = seen(outcome.out)
        found = bench.cast.problems(before, after, whole.faces)
        mask = away(whole.faces, before.shape)
        levels = np.abs(before[mask].astype(float) - after[mask]).mean()
        if levels > 1 + 0.5 * (outcome.out.suffix == ".jpg") + outcome.levels:
            found.append(f"colours away from the face differ by {levels:.1f} levels")
        with Image.open(outcome.out) as image:
            if profile is not None and image.info.get("icc_profile") != profile:
                found.append("the profile is lost")
        return found

    return check


def blending(bench: Bench) -> Iterator[Case]:
    """Yield cases: every way of compositing leaves pixels away from the face to the bit."""
    whole = portrait_of(bench.cast.portrait, 60)
    ways: Sequence[Sequence[str]] = (
        ("--blend", "poisson"),
        ("--blend", "poisson", "--mask", "oval"),
        ("--blend", "poisson", "--mask", "face-segmenter"),
        ("--blend", "poisson", "--keep", "occlusions"),
        ("--mask", "oval"),
        ("--mask", "landmarks"),
        ("--colour", "none"),
        ("--colour", "lab"),
        ("--colour", "histogram"),
        ("--keep", "reconstruction-errors"),
    )
    for way in ways:
        target = bench.place() / "picture.png"
        Image.fromarray(whole.frame).save(target)
        check = picture_check(bench.cast, whole, [0], exact=True)
        yield bench.swap(" ".join(way), target, check, options=[*way, *PLAIN])


def transparent(bench: Bench) -> Iterator[Case]:
    """Yield cases: transparency is kept in PNG and WebP, palettes too; films lose it, which is said."""
    whole = portrait_of(bench.cast.portrait, 60)
    height, width = whole.frame.shape[:2]
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).ellipse((30, 10, width - 30, height - 10), fill=255)
    soft = np.array(mask) // 2 + np.arange(width, dtype=np.uint8)[None] % 100
    layers = {"hard": np.array(mask), "soft": soft.astype(np.uint8)}
    for name, alpha in layers.items():
        for suffix in (".png", ".webp"):
            target = bench.place() / f"layer{suffix}"
            options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == ".webp" else {}
            Image.fromarray(np.dstack([whole.frame, alpha])).save(target, **options)
            check = _layered(bench, whole, alpha, lossy=suffix == ".webp")
            yield bench.swap(f"{name}, {suffix}", target, check, options=PLAIN, portable=True)
    target = bench.place() / "palette.png"
    palette = Image.fromarray(whole.frame).quantize(254)
    pixels = np.array(palette)
    pixels[layers["hard"] == 0] = 255
    holes = Image.fromarray(pixels, "P")
    holes.putpalette([*(palette.getpalette() or [])[: 3 * 254], *[0] * 6])
    holes.save(target, transparency=255)
    yield bench.swap("palette with a hole", target, _has_hole, options=PLAIN, portable=True)
    for codec, pixel_format, suffix in (
        ("prores_ks", "yuva444p10le", ".mov"),
        ("qtrle", "argb", ".mov"),
        ("png", "rgba", ".mov"),
    ):
        frames = [np.dstack([each.frame, np.full(each.frame.shape[:2], 255, np.uint8)]) for each in walk(bench, 4)]
        for frame in frames:
            frame[:, :20, 3] = 0

        def prepare(stream: Any, pixel_format: str = pixel_format) -> None:
            stream.pix_fmt = pixel_format

        target = make_film(bench.place() / f"layer{suffix}", frames, codec, None, bframes=0, prepare=prepare)
        yield bench.swap(f"film, {codec}, {pixel_format}", target, _layered_film, options=PLAIN, expected="either")


def _layered(bench: Bench, whole: Scene, alpha: np.ndarray, lossy: bool) -> Check:
    def check(outcome: Outcome) -> list[str]:
        with Image.open(outcome.out) as image:
            if image.mode != "RGBA":
                return [f"the result has mode {image.mode}"]
            pixels = np.array(image)
        found = [] if np.array_equal(pixels[..., 3], alpha) else ["the transparency differs"]
        mask = away(whole.faces, whole.frame.shape)
        levels = np.abs(whole.frame[mask].astype(float) - pixels[mask][:, :3]).mean()
        most = outcome.levels + (2.0 if lossy else 0.0)
        return found if levels <= most else [*found, f"pixels away from the face differ by {levels:.1f} levels"]

    return check


def _has_hole(outcome: Outcome) -> list[str]:
    with Image.open(outcome.out) as image:
        alpha = np.array(image.convert("RGBA"))[..., 3]
    is_kept = alpha[0, 0] == 0 and alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] == 255
    return [] if is_kept else ["the transparency is lost"]


def _layered_film(outcome: Outcome) -> list[str]:
    with av.open(str(outcome.out)) as container:
        frame = next(container.decode(video=0))
        pixels = frame.to_ndarray(format="rgba")
    if (pixels[:, :15, 3] < 20).all():
        return []
    return said(outcome, "transparen", "alpha")


def wide(bench: Bench) -> Iterator[Case]:
    """Yield cases: 16 bits a channel stay away from the face."""
    whole = portrait_of(bench.cast.portrait, 60)
    low = np.random.default_rng(0).integers(-100, 100, whole.frame.shape)
    deep = (whole.frame.astype(np.int64) * 257 + low).clip(0, 65535).astype(np.uint16)
    grey = deep.mean(axis=2).astype(np.uint16)
    for name, pixels in (
        ("RGB", deep),
        ("grey", grey),
        ("RGBA", np.dstack([deep, np.full(grey.shape, 65535, np.uint16)])),
    ):
        for suffix in (".png", ".tif"):
            target = bench.place() / f"deep{suffix}"
            order = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
            cv2.imwrite(str(target), order)

            def check(outcome: Outcome, pixels: np.ndarray = pixels) -> list[str]:
                after = cv2.imread(str(outcome.out), cv2.IMREAD_UNCHANGED)
                found = bench.cast.problems(whole.frame, picture(outcome.out), whole.faces) if pixels.ndim == 3 else []
                if after is None or after.dtype != np.uint16:
                    return [*found, "8 bits are left"]
                mask = away(whole.faces, whole.frame.shape)
                wanted = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
                got = after[..., 2::-1] if after.ndim == 3 else np.repeat(after[..., None], 3, 2)
                levels = np.abs(wanted[..., :3][mask].astype(float) - got[mask]).mean()
                return (
                    found if levels <= 2 + 257 * outcome.levels else [*found, f"16-bit pixels differ by {levels:.0f}"]
                )

            title = f"16 bit, {name}, {suffix}"
            yield bench.swap(title, target, check, ".png", PLAIN, portable=True)


def moving(bench: Bench) -> Iterator[Case]:
    """Yield cases: pictures that move are films: every picture, its duration and the loop.

    `fsf serve` and `SwapPipeline.swap` swap one picture, and refuse them.
    """
    scenes = walk(bench, 5)
    images = [Image.fromarray(each.frame) for each in scenes]
    lengths = [100, 200, 100, 300, 100]
    kinds: Sequence[tuple[str, dict[str, Any]]] = (
        (".gif", {"loop": 0}),
        (".gif", {"loop": 3}),
        (".webp", {"loop": 0, "quality": 95}),
        (".webp", {"loop": 2, "lossless": True}),
        (".png", {"loop": 0}),
        (".png", {"loop": 4, "disposal": 1}),
    )
    for suffix, options in kinds:
        target = bench.place() / f"moving{suffix}"
        images[0].save(target, save_all=True, append_images=images[1:], duration=lengths, **options)

        def check(outcome: Outcome, target: Path = target, is_coarse: bool = suffix == ".gif") -> list[str]:
            return _moved(bench, scenes, target, outcome, is_coarse)

        title = f"{suffix}, loop {options['loop']}"
        yield bench.swap(title, target, check, expected="either", portable=suffix != ".gif")
    target = bench.place() / "moving.gif"
    images[0].save(target, save_all=True, append_images=images[1:], duration=lengths, loop=0)
    check_film = lambda outcome: [] if len(film(outcome.out).frames) >= 5 else ["frames are lost"]  # noqa: E731
    yield bench.swap(".gif to .mp4", target, check_film, ".mp4", expected="either")
    folder = bench.place() / "moving"
    folder.mkdir()
    target.rename(folder / "moving.gif")
    images[0].save(folder / "still.png")
    out = folder.with_name("out")

    def whole_folder(outcome: Outcome) -> list[str]:
        results = [file for file in outcome.out.iterdir() if file.name.startswith("moving.gif")]
        if not results:
            return said(outcome, "moving.gif")
        count = _count(results[0])
        return [] if count == len(scenes) else [f"{count} pictures instead of {len(scenes)}"]

    arguments: list[str | Path] = ["swap", bench.cast.source_file, folder, out]
    yield Case("folder with a GIF", arguments, whole_folder, out, "either")


def _count(file: Path) -> int:
    if file.suffix == ".mp4":
        return len(film(file).frames)
    with Image.open(file) as image:
        return int(getattr(image, "n_frames", 1))


def _moved(bench: Bench, scenes: Sequence[Scene], target: Path, outcome: Outcome, is_coarse: bool) -> list[str]:
    """Return what a result lost of a moving picture; the colours of a palette are coarse."""
    with Image.open(target) as before, Image.open(outcome.out) as after:
        count = getattr(after, "n_frames", 1)
        if count != len(scenes):
            return [f"{count} pictures instead of {len(scenes)}"]
        found = []
        if before.info.get("loop") != after.info.get("loop"):
            found.append(f"loop {after.info.get('loop')} instead of {before.info.get('loop')}")
        for number, each in enumerate(scenes):
            before.seek(number)
            after.seek(number)
            lengths = before.info.get("duration"), after.info.get("duration")
            if lengths[0] != lengths[1]:
                found.append(f"picture {number + 1} lasts {lengths[1]} ms instead of {lengths[0]}")
            frames = np.array(before.convert("RGB")), np.array(after.convert("RGB"))
            found += bench.cast.problems(*frames, each.faces)
            mask = away(each.faces, frames[0].shape)
            levels = np.abs(frames[0][mask].astype(float) - frames[1][mask]).mean()
            if levels > (8.0 if is_coarse else 4.0):
                found.append(f"picture {number + 1} differs by {levels:.1f} levels away from the face")
    return found[:4]


def formats(bench: Bench) -> Iterator[Case]:
    """Yield cases: every format that Pillow and OpenCV write; pictures of phones."""
    whole = portrait_of(bench.cast.portrait, 60)
    image = Image.fromarray(whole.frame)
    for suffix, options in (
        (".bmp", {}),
        (".gif", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".ppm", {}),
        (".jp2", {"irreversible": False}),
        (".avif", {"quality": 95}),
        (".jpeg", {"quality": 95, "progressive": True}),
        (".webp", {"lossless": True}),
    ):
        target = bench.place() / f"picture{suffix}"
        image.save(target, **options)
        check = picture_check(bench.cast, Scene(picture(target), whole.faces), [0], exact=suffix != ".jpeg")
        out = ".jpeg" if suffix == ".jpeg" else ".png"
        yield bench.swap(f"{suffix} to {out}", target, check, out, PLAIN, portable=True)
    for mode in ("L", "LA", "P", "1"):
        target = bench.place() / "picture.png"
        image.convert(mode).save(target)
        shown = Scene(picture(target), whole.faces)
        expected: Any = "either" if mode == "1" else "result"
        check = picture_check(bench.cast, shown, [0]) if mode != "1" else (lambda outcome: [])
        yield bench.swap(f"mode {mode}", target, check, options=PLAIN, expected=expected, portable=True)
    containers = {".heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ".jxl": b"\0\0\0\x0cJXL \r\n\x87\n"}
    for suffix, head in containers.items():
        target = bench.place() / f"phone{suffix}"
        target.write_bytes(head + bytes(4000))
        yield bench.swap(f"{suffix[1:]} that is damaged", target, _never, ".png", expected="refusal", portable=True)
        folder = bench.place() / "phone"
        folder.mkdir()
        target.rename(folder / target.name)
        image.save(folder / "z.png")
        results = folder.with_name("out")

        def named(outcome: Outcome, name: str = target.name) -> list[str]:
            return ["z.png is missing"] * (not (outcome.out / "z.png").is_file()) + said(outcome, name)

        yield Case(
            f"{suffix[1:]} in a folder", ["swap", bench.cast.source_file, folder, results], named, results, "either"
        )


def _never(outcome: Outcome) -> list[str]:
    return ["there is a result"]


KINDS: dict[str, list[Maker]] = {
    "colour profiles and CMYK": [profiles],
    "blending, masks and colours": [blending],
    "transparency": [transparent],
    "16 bits a channel": [wide],
    "moving pictures": [moving],
    "formats of pictures, HEIC and JXL": [formats],
}
