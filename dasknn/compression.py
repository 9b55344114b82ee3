"""Fewer bytes for averaged gradients: the public path of `strategies/compression.py`."""

from dasknn.strategies.compression import Compression, Float16, PowerSGD

__all__ = ["Compression", "Float16", "PowerSGD"]
