"""DeepFakes and FaceSwap-GAN: one shared encoder, a decoder for each person, trained to undo random warps."""

from fsf_deepfakes.decoders import PersonDecoders
from fsf_deepfakes.encoder import SharedEncoder
from fsf_deepfakes.random_warp import RandomWarp
from fsframework import hookimpl


@hookimpl
def register_attribute_encoders():
    return [SharedEncoder]


@hookimpl
def register_generators():
    return [PersonDecoders]


@hookimpl
def register_datasets():
    return [RandomWarp]
