"""dasknn: neural networks trained where the data is, on a Dask cluster.

`__init__.pyi` says what there is, which is imported when it is first used: each of Dask's commands, such as
`dask worker`, imports this package for the sake of `dask nn`.
"""

import lazy_loader

from dasknn import _capacity

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"


def _count_slots() -> int:
    from dasknn.cluster.connect import connect

    with connect(None, distributed=False) as executor:
        return len(executor.slots())


_capacity.register(_count_slots)
