"""Imported, this compiles the steps of both dtypes, or reads them: worker processes are forked with them."""

from dasknn.engine.compiled.steps import prepare

for dtype in ("float32", "float64"):
    prepare(dtype)
