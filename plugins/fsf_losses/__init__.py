"""Losses shared by several methods: identity, reconstruction, adversarial, DSSIM, eyes, features and margins."""

from fsf_losses.dssim import Dssim
from fsf_losses.eyes import Eyes
from fsf_losses.feature_reconstruction import FeatureReconstruction
from fsf_losses.hinge_gan import HingeGan
from fsf_losses.identity import Identity
from fsf_losses.margin import ArcFace, CosFace, Margin
from fsf_losses.projected_gan import ProjectedGan
from fsf_losses.reconstruction import Reconstruction
from fsframework import hookimpl
from fsframework.core.components import Loss


@hookimpl
def register_losses() -> list[type[Loss]]:
    return [
        ArcFace,
        CosFace,
        Dssim,
        Eyes,
        FeatureReconstruction,
        HingeGan,
        Identity,
        Margin,
        ProjectedGan,
        Reconstruction,
    ]
