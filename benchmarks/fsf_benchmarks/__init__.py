"""Benchmarks of face swapping, with estimators of pose, expression and gaze.

They measure identity, attributes (pose, expression, gaze, occlusions, background), reconstruction, distance to
ground-truth swaps, errors of estimators and identity encoders, and speed.
"""

from fsf_benchmarks.background import Background
from fsf_benchmarks.expression_error import ExpressionError
from fsf_benchmarks.frechet import Frechet
from fsf_benchmarks.fsanet import FSANet
from fsf_benchmarks.gaze_error import GazeError
from fsf_benchmarks.identity_retrieval import IdentityRetrieval
from fsf_benchmarks.known_pose import KnownPose
from fsf_benchmarks.occlusion import Occlusion
from fsf_benchmarks.perceptual import Perceptual
from fsf_benchmarks.pnp import PnP
from fsf_benchmarks.pose_error import PoseError
from fsf_benchmarks.pupils import Pupils
from fsf_benchmarks.reconstruction import Reconstruction
from fsf_benchmarks.same_person import SamePerson
from fsf_benchmarks.sharpness import Sharpness
from fsf_benchmarks.speed import Speed
from fsf_benchmarks.stability import Stability
from fsf_benchmarks.threed_dfa import ThreeDDFA, ThreeDDFAExpression
from fsf_benchmarks.true_swap import TrueSwap
from fsf_benchmarks.verification import Verification
from fsframework import hookimpl


@hookimpl
def register_benchmarks():
    return [
        Background,
        ExpressionError,
        Frechet,
        GazeError,
        IdentityRetrieval,
        KnownPose,
        Occlusion,
        Perceptual,
        PoseError,
        Reconstruction,
        SamePerson,
        Sharpness,
        Speed,
        Stability,
        TrueSwap,
        Verification,
    ]


@hookimpl
def register_estimators():
    return [FSANet, PnP, Pupils, ThreeDDFA, ThreeDDFAExpression]
