"""What numba's own `np.dot` calls."""

from __future__ import annotations

#: Symbol of numba's helper library: gemm of SciPy's BLAS.
GEMM = "numba_xxgemm"
