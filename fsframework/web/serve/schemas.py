"""What requests ask and what answers say: the models behind /openapi.json."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Box = tuple[float, float, float, float]
Point = tuple[float, float]


class Problem(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="A sentence: what is wrong, and what to do.")


class Info(BaseModel):
    """What this server is and takes."""

    model: str | None = Field(description="The model that swaps.")
    size: int = Field(description="Side of the crops that it swaps, in pixels.")
    version: str = Field(description="Of fsframework.")
    weights_sha256: str | None = Field(description="Of all tensors that swap.")
    file_bytes: int = Field(description="Most bytes of a file.")
    pixels: int = Field(description="Most pixels of a picture.")
    seconds: float = Field(description="Longest time to receive a request, and again to answer it.")
    waiting: int = Field(description="Requests that may wait; more get 503.")
    faces: int = Field(description="Most faces that are swapped in a picture.")


class FoundFace(BaseModel):
    """A face, in pixels of the upright picture."""

    number: int = Field(description="Counted from the left, from 1: what `face` and `source_face` take.")
    box: Box = Field(description="Left, top, right, bottom.")
    landmarks: list[Point] = Field(description="Eye, eye, nose, mouth corner, mouth corner; the viewer's left first.")
    score: float = Field(description="How sure the detector is, 0 to 1.")
    largest: bool = Field(description="It is the one that is taken where nothing is said.")


class FoundFaces(BaseModel):
    """The faces of a picture."""

    width: int = Field(description="Of the picture, once turned upright, in pixels.")
    height: int = Field(description="Of the picture, in pixels.")
    faces: list[FoundFace] = Field(description="From left to right.")


class SwapRequest(BaseModel):
    """The fields of a swap, besides its two files."""

    model_config = ConfigDict(extra="forbid")
    face: str = Field(
        "largest",
        pattern="^(largest|all|[1-9][0-9]{0,3})$",
        description="Which faces of the target are swapped: largest, all, or a number from the left from 1.",
    )
    source_face: str = Field(
        "largest",
        pattern="^(largest|[1-9][0-9]{0,3})$",
        description="Which face of the source is taken: largest, or a number from the left from 1.",
    )
    label: bool = Field(False, description="Write the word synthetic into a corner, too.")
    consent: str | None = Field(None, description="Who agreed to what, for the manifest.")
    format: Literal["png", "jpeg", "webp"] = Field("png", description="Of the result.")


class SwappedFace(BaseModel):
    """A face of the target that was swapped. Pictures are PNGs in base64."""

    number: int = Field(description="Counted from the left, from 1.")
    box: Box = Field(description="Left, top, right, bottom, in pixels of the target.")
    cosine_to_source: float = Field(
        description="Between the identity vectors of swap and source, by the network that the method was trained with."
    )
    cosine_to_target: float = Field(description="The same of swap and target.")
    pose_degrees: float | None = Field(
        description="Distance of the head poses (yaw, pitch, roll) of swap and target, from five landmarks; "
        "none where the face of either was not found again."
    )
    target: str = Field(description="The target's aligned crop.")
    swap: str = Field(description="The result's, at the same place; marked by watermark and XMP.")
    mask: str = Field(description="How much of the swap was taken, in the crop that the network saw; white is all.")
    matrix: list[tuple[float, float, float]] = Field(
        description="2 x 3, from pixels of the target to pixels of the mask."
    )


class Details(BaseModel):
    """A swap with what was seen on the way."""

    result: str = Field(description="The marked picture, in base64.")
    type: str = Field(description="Its media type.")
    file_name: str = Field(description="A name to keep it under.")
    width: int = Field(description="Of the result, in pixels.")
    height: int = Field(description="Of the result, in pixels.")
    seconds: float = Field(description="That the swap took, without waiting.")
    source: str = Field(description="The source's aligned crop, a PNG in base64.")
    faces: list[SwappedFace] = Field(description="Those that were swapped, from left to right; the first eight.")


class Verification(BaseModel):
    """What a picture says of itself, as `fsf verify --json` has it, without names of files."""

    verdict: Literal["intact", "altered", "doubtful", "unsigned", "unmarked"] = Field(description="In a word.")
    meaning: str = Field(description="In a sentence.")
    manifest: dict[str, Any] | None = Field(description="What its C2PA manifest says.")
    xmp: bool = Field(description="Its XMP says that it is synthetic.")
    watermark: dict[str, Any] | None = Field(description="What was read from its pixels.")
    ledger_entries: list[dict[str, Any]] = Field(description="What this machine knows of it.")
    notes: list[str] = Field(description="What else there is to say.")
