"""Keras computes with PyTorch here; it hears of that before it is imported."""

import os

os.environ["KERAS_BACKEND"] = "torch"
