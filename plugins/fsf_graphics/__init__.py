"""Face swapping by computer graphics: a 3D head model, its fit and a renderer; and a dataset of rendered heads."""

from fsf_graphics.face_mesh import FaceMesh
from fsf_graphics.face_texture import FaceTexture, Picture
from fsf_graphics.landmark_pose import LandmarkPose
from fsf_graphics.rendered_heads import RenderedHeads
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


@hookimpl
def register_estimators():
    return [LandmarkPose]


@hookimpl
def register_datasets():
    return [RenderedHeads]
