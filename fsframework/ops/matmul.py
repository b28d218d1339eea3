"""Matrix products on CPUs, float32 or bfloat16.

torch lets MKL multiply float32 matrices, which on processors by others than Intel leaves AVX-512 alone: on one of
AMD's fifth generation it reached 216 GFLOP/s where oneDNN, by which torch convolves, reached 450. So on those with
AVX-512 the products go by oneDNN, through the operator that torch's own compiler uses for linear layers. On Intel's own
MKL is the faster by a sixth.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor


def matmul(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """(M, N) of (M, K) and (K, N), which may be transposed views, plus a bias (N,). No gradient goes through it."""
    if left.dtype == torch.float32 and by_onednn():
        made: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, bias, "none", [], "")
        return made
    return left @ right if bias is None else torch.addmm(bias, left, right)


@cache
def by_onednn() -> bool:
    """Whether float32 matrices are multiplied by oneDNN."""
    about: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions do not say
    if str(about.get("cpu_name")).startswith("Intel"):
        return False
    able = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return able and hasattr(torch.ops.mkldnn, "_linear_pointwise")
