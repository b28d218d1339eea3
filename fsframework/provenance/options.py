"""Mark results as synthetic: manifest, XMP, watermark and label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsframework.core.errors import UserError
from fsframework.media.draw import draw_label
from fsframework.media.image_io import TargetImage, write_image
from fsframework.provenance.c2pa import MAX_CONSENT, OPT_OUT, SIGNABLE, _load_signer, add_xmp, media_type, sign
from fsframework.provenance.ledger import append
from fsframework.provenance.record import ProvenanceRecord
from fsframework.provenance.watermark import embed
from fsframework.utils.files import sha256_of


@dataclass(frozen=True)
class ProvenanceOptions:
    """How results are marked as synthetic.

    Parameters
    ----------
    provenance:
        Embed a manifest and a watermark. Without it results get XMP only, and the ledger records the omission.
    label:
        Draw the word "synthetic" on results.
    consent:
        What the people in the images agreed to, for the manifest.

    Raises
    ------
    UserError
        `consent` is empty, too long, or given without `provenance`.
    """

    provenance: bool = True
    label: bool = False
    consent: str | None = None

    def __post_init__(self) -> None:
        if self.consent is None:
            return
        if not self.consent.strip() or len(self.consent) > MAX_CONSENT:
            raise UserError(f"consent: is empty or longer than {MAX_CONSENT:,} characters; write who agreed to what")
        if not self.provenance:
            raise UserError("consent: is part of the manifest, which is left out; give one of the two options")

    def check(self, *outs: Path) -> None:
        """Raise UserError, before any work, if signing is impossible or an output's format holds no manifest."""
        if not self.provenance:
            return
        for out in outs:
            if out.suffix.lower() not in SIGNABLE:
                raise UserError(f"{out}: this format holds no manifest; choose .mp4, {OPT_OUT}")
        _load_signer()


def write_swap(
    out: Path,
    image: np.ndarray,
    record: ProvenanceRecord,
    options: ProvenanceOptions,
    target: Path,
    sources: Sequence[Path] = (),
    decoded: TargetImage | None = None,
) -> None:
    """Write a swap (H, W, 3) uint8 of a target and its sources atomically, with all provenance marks.

    `decoded` is the target with the profile and the transparency that the result keeps; None: it keeps neither.

    Raises
    ------
    UserError
        The image cannot be written, or the manifest cannot be attached.
    """
    marked = mark_frame(image, options, record.watermark)
    size = (image.shape[1], image.shape[0])
    write_image(
        out,
        marked,
        finish=lambda path: attach_manifest(path, out, record, options, target, sources, size),
        target=decoded,
    )


def mark_frame(frame: np.ndarray, options: ProvenanceOptions, payload: int) -> np.ndarray:
    """Return an image or a video frame (H, W, 3) uint8 with the label and the watermark that `options` select."""
    if options.label:
        frame = draw_label(frame)
    return embed(frame, payload) if options.provenance else frame


def attach_manifest(
    path: Path,
    out: Path,
    record: ProvenanceRecord,
    options: ProvenanceOptions,
    target: Path,
    sources: Sequence[Path] = (),
    size: tuple[int, int] | None = None,
) -> None:
    """Attach the manifest to a finished file with marked frames, and append it to the ledger.

    Parameters
    ----------
    path:
        The file, JPEG, PNG, WebP, GIF, TIFF, MP4 or MOV, which is replaced. Videos get XMP here; images
        already have it.
    out:
        Its final path.
    target, sources:
        The input files of the result.
    size:
        Width and height in pixels, for the ledger. They let `verify` find the watermark in scaled copies.

    Raises
    ------
    UserError
        The file cannot be signed, or the ledger cannot be written. `out` must then not be created.
    """
    if media_type(path) in ("video/mp4", "video/quicktime"):
        add_xmp(path)
    if options.provenance:
        sign(path, path, target, record, sources, out, size)
    else:
        facts = {**record.facts(), "file": str(out.absolute()), "sha256": sha256_of(path)}
        append({"provenance": False, **facts})
