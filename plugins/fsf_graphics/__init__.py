"""Face swapping by computer graphics: a head model, its fit, and a renderer."""

from fsf_graphics.face_mesh import FaceMesh
from fsf_graphics.face_texture import FaceTexture, Picture
from fsframework import hookimpl


@hookimpl
def register_identity_encoders():
    return [FaceTexture]


@hookimpl
def register_attribute_encoders():
    return [Picture]


@hookimpl
def register_generators():
    return [FaceMesh]
