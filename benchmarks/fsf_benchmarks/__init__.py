"""Benchmarks: is it the source's face, and the target's pose; with the pose estimator that needs
nothing else; and how fast is the code?"""

from fsf_benchmarks.identity_retrieval import IdentityRetrieval
from fsf_benchmarks.pnp import PnP
from fsf_benchmarks.pose_error import PoseError
from fsf_benchmarks.speed import Speed
from fsframework import hookimpl


@hookimpl
def register_benchmarks():
    return [IdentityRetrieval, PoseError, Speed]


@hookimpl
def register_estimators():
    return [PnP]
