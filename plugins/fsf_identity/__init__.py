"""Identity encoders: face recognisers that map an aligned crop to an embedding."""

from fsf_identity.dlib_resnet import DlibResNet
from fsf_identity.iresnet import IResNet
from fsf_identity.lfw_recogniser import LfwRecogniser
from fsf_identity.mobilefacenet import MobileFaceNet
from fsf_identity.mobilefacenet_112 import MobileFaceNet112
from fsf_identity.timm_recogniser import TimmRecogniser
from fsframework import hookimpl


@hookimpl
def register_identity_encoders():
    return [DlibResNet, IResNet, LfwRecogniser, MobileFaceNet, MobileFaceNet112, TimmRecogniser]
