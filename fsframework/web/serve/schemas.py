"""Models of requests and responses, the source of /openapi.json."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Box = tuple[float, float, float, float]
Point = tuple[float, float]


class Problem(BaseModel):
    """The reason of a refused request."""

    error: str = Field(description="A sentence: the problem and its remedy.")


class Info(BaseModel):
    """The server's model and limits."""

    model: str | None = Field(description="Name of the model.")
    size: int = Field(description="Side of the model's crops, in pixels.")
    version: str = Field(description="Version of fsframework.")
    weights_sha256: str | None = Field(description="SHA-256 of the model's tensors.")
    file_bytes: int = Field(description="Maximum bytes of a file.")
    pixels: int = Field(description="Maximum pixels of an image.")
    seconds: float = Field(description="Maximum time to receive a request, and again to answer it.")
    waiting: int = Field(description="Maximum number of waiting requests; more get 503.")
    faces: int = Field(description="Maximum number of faces swapped in an image.")


class FoundFace(BaseModel):
    """A face, in pixels of the upright image."""

    number: int = Field(description="Number from the left, from 1: the value of `face` and `source_face`.")
    box: Box = Field(description="Left, top, right, bottom.")
    landmarks: list[Point] = Field(description="Eye, eye, nose, mouth corner, mouth corner; the viewer's left first.")
    score: float = Field(description="Confidence of the detector, 0 to 1.")
    largest: bool = Field(description="Whether this is the largest face, the default.")


class FoundFaces(BaseModel):
    """The faces of an image."""

    width: int = Field(description="Width of the upright image, in pixels.")
    height: int = Field(description="Height of the upright image, in pixels.")
    faces: list[FoundFace] = Field(description="Faces from left to right.")
    notes: list[str] = Field(description="Which faces are left out: doubtful ones, and those that the frame cuts.")


class SwapRequest(BaseModel):
    """The fields of a swap, in addition to its two files."""

    model_config = ConfigDict(extra="forbid")
    face: str = Field(
        "largest",
        pattern="^(largest|all|[1-9][0-9]{0,3})$",
        description="Faces of the target to swap: largest, all, or a number from the left, from 1.",
    )
    source_face: str = Field(
        "largest",
        pattern="^(largest|[1-9][0-9]{0,3})$",
        description="Face of the source to use: largest, or a number from the left, from 1.",
    )
    label: bool = Field(False, description="Draw the word synthetic in a corner.")
    consent: str | None = Field(None, description="Consent of the people in the images, for the manifest.")
    format: Literal["png", "jpeg", "webp"] = Field("png", description="Format of the result.")


class SwappedFace(BaseModel):
    """A swapped face of the target. Images are PNGs in base64."""

    number: int = Field(description="Number from the left, from 1.")
    box: Box = Field(description="Left, top, right, bottom, in pixels of the target.")
    cosine_to_source: float = Field(
        description="Cosine of the identity embeddings of swap and source, by the model's own identity encoder."
    )
    cosine_to_target: float = Field(description="Cosine of the identity embeddings of swap and target.")
    pose_degrees: float | None = Field(
        description="Distance of the head poses (yaw, pitch, roll) of swap and target, from five landmarks; "
        "null if a face was not detected again."
    )
    target: str = Field(description="Aligned crop of the target.")
    swap: str = Field(description="Crop of the result at the same position, marked by watermark and XMP.")
    mask: str = Field(description="Blending mask of the swap in the model's crop; white is 1.")
    matrix: list[tuple[float, float, float]] = Field(
        description="Affine matrix (2, 3) from pixels of the target to pixels of the mask."
    )


class Details(BaseModel):
    """A swap with its intermediate results."""

    result: str = Field(description="The marked image, in base64.")
    type: str = Field(description="Media type of the result.")
    file_name: str = Field(description="Suggested file name of the result.")
    width: int = Field(description="Width of the result, in pixels.")
    height: int = Field(description="Height of the result, in pixels.")
    seconds: float = Field(description="Duration of the swap, without waiting time.")
    note: str | None = Field(
        description="Why a swap is softer than its surroundings (its face is much larger than the model's crops) or "
        "small, and what to do, and which faces are left out; null if there is nothing to say."
    )
    source: str = Field(description="Aligned crop of the source, a PNG in base64.")
    faces: list[SwappedFace] = Field(description="Swapped faces from left to right; the first eight.")


class Verification(BaseModel):
    """The provenance report of an image, as in `fsf verify --json`, without file names."""

    verdict: Literal["intact", "altered", "doubtful", "unsigned", "unmarked"] = Field(
        description="Verdict in one word."
    )
    meaning: str = Field(description="Verdict in a sentence.")
    manifest: dict[str, Any] | None = Field(description="Content of the C2PA manifest.")
    xmp: bool = Field(description="Whether XMP declares the image synthetic.")
    watermark: dict[str, Any] | None = Field(description="Watermark in the pixels.")
    ledger_entries: list[dict[str, Any]] = Field(description="Matching entries of this machine's ledger.")
    notes: list[str] = Field(description="Further remarks.")
