"""dasknn: neural networks trained where the data is, on a Dask cluster.

`__init__.pyi` says what there is, which is imported when it is first used: each of Dask's commands, such as
`dask worker`, imports this package for the sake of `dask nn`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
