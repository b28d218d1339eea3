"""Autoencoders for a closed set of people: DeepFakes, FaceSwap-GAN and DeepFaceLab, trained to undo random warps."""

from fsf_autoencoders.decoders import PersonDecoders
from fsf_autoencoders.deepfacelab import DflDf, DflEncoder, DflLiae
from fsf_autoencoders.encoder import SharedEncoder
from fsf_autoencoders.random_warp import RandomWarp
from fsframework import hookimpl


@hookimpl
def register_attribute_encoders():
    return [DflEncoder, SharedEncoder]


@hookimpl
def register_generators():
    return [DflDf, DflLiae, PersonDecoders]


@hookimpl
def register_datasets():
    return [RandomWarp]
