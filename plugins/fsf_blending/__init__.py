"""Blend a generated face into its target: masks, colour transfer, blending."""

from fsf_blending.blend import Blend
from fsf_blending.face_segmenter import FaceSegmenter
from fsf_blending.hull_mask import HullMask
from fsf_blending.mask_losses import MaskLoss, MaskShape
from fsframework import hookimpl


@hookimpl
def register_refiners():
    return [Blend]


@hookimpl
def register_estimators():
    return [FaceSegmenter, HullMask]


@hookimpl
def register_losses():
    return [MaskLoss, MaskShape]
