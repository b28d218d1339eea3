"""Benchmarks: is it the source's face, are pose and occluders the target's, does a picture come back; the estimators of
pose; what a judge is worth; and how fast the code is."""

from fsf_benchmarks.identity_retrieval import IdentityRetrieval
from fsf_benchmarks.occlusion import Occlusion
from fsf_benchmarks.pnp import PnP
from fsf_benchmarks.pose_error import PoseError
from fsf_benchmarks.reconstruction import Reconstruction
from fsf_benchmarks.speed import Speed
from fsf_benchmarks.threed_dfa import ThreeDDFA
from fsf_benchmarks.verification import Verification
from fsframework import hookimpl


@hookimpl
def register_benchmarks():
    return [IdentityRetrieval, Occlusion, PoseError, Reconstruction, Speed, Verification]


@hookimpl
def register_estimators():
    return [PnP, ThreeDDFA]
