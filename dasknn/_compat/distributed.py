"""What distributed uses between its own processes, and raises when a connection ends."""

from __future__ import annotations

from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError, connect
from distributed.protocol import to_serialize

__all__ = ["CommClosedError", "FutureCancelledError", "connect", "to_serialize"]
