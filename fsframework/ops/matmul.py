"""Multiply matrices on CPUs, in float32 or bfloat16.

torch multiplies float32 matrices by MKL, which does not use AVX-512 on processors of other vendors than Intel. On an
AMD processor of the fifth generation MKL reached 216 GFLOP/s and oneDNN, which computes torch's convolutions, 450. On
such processors with AVX-512 the products therefore use oneDNN, through the operator of torch's own compiler for linear
layers. On Intel processors MKL is faster by a sixth.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor


def matmul(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the product (M, N) of matrices (M, K) and (K, N), plus a bias (N,); without a gradient.

    Both matrices may be transposed views.
    """
    if left.dtype == torch.float32 and by_onednn():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, bias, "none", [], "")
        return product
    return left @ right if bias is None else torch.addmm(bias, left, right)


@cache
def by_onednn() -> bool:
    """Return whether float32 matrices are multiplied by oneDNN."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older versions
    if str(capabilities.get("cpu_name")).startswith("Intel"):
        return False
    is_available = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return is_available and hasattr(torch.ops.mkldnn, "_linear_pointwise")
