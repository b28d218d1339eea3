"""Benchmarks: is it the source's face, and the target's pose; with the pose estimator that needs nothing else."""

from fsf_benchmarks.identity_retrieval import IdentityRetrieval
from fsf_benchmarks.pnp import PnP
from fsf_benchmarks.pose_error import PoseError
from fsframework import hookimpl


@hookimpl
def register_benchmarks():
    return [IdentityRetrieval, PoseError]


@hookimpl
def register_estimators():
    return [PnP]
