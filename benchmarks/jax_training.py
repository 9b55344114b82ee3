"""Epochs of a multi-layer perceptron in JAX, on one core. JAX is optional: without it, `jax` is None.

The work is dasknn's: float32, softmax cross-entropy or binary cross-entropy, Adam, shuffled mini-batches. An
epoch is one compiled call: a scan over the batches of full size, then a step on the rows that are left.
"""

import os
from functools import partial
from itertools import pairwise

import numpy as np

try:
    # The size of XLA's pool of threads. With jax 0.10.2, --xla_cpu_multi_thread_eigen=false in XLA_FLAGS
    # left products on all cores.
    os.environ["NPROC"] = "1"
    import jax
    import jax.numpy as jnp

    # Otherwise a second thread computes while this one prepares the next call.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
except ImportError:
    jax = None


def fit_in_jax(X, y, hidden, n_classes, batch):
    """Return a function that trains a new network for a number of epochs."""
    X, y = jnp.asarray(X), jnp.asarray(y, jnp.int32)
    widths = [X.shape[1], *hidden, n_classes if n_classes > 2 else 1]
    compiled = jax.jit(partial(epoch, batch), donate_argnums=0)

    def fit(epochs):
        rng = np.random.default_rng(0)
        state = init(widths, rng)
        for _ in range(epochs):
            # Drawn by NumPy, as dasknn does: JAX's permutation sorts, which takes longer.
            order = rng.permutation(len(X)).astype(np.int32)
            state = compiled(state, order, X, y)
        return jax.block_until_ready(state)

    return fit


def init(widths, rng):
    """Return (params, first moments, second moments, number of steps) before the first step."""
    params = []
    for n_inputs, units in pairwise(widths):
        bound = (6 / (n_inputs + units)) ** 0.5
        W = rng.uniform(-bound, bound, (n_inputs, units)).astype(np.float32)
        params.append((jnp.asarray(W), jnp.zeros(units, jnp.float32)))
    # One array each: an array that two places share cannot be donated.
    moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
    return params, *moments, jnp.zeros((), jnp.int32)


def epoch(batch, state, order, X, y):
    n_full = len(order) // batch * batch

    def scanned(state, rows):
        return step(state, rows, X, y), None

    state, _ = jax.lax.scan(scanned, state, order[:n_full].reshape(-1, batch))
    return step(state, order[n_full:], X, y) if n_full < len(order) else state


def step(state, rows, X, y):
    """Return the state after a step of Adam, with scikit-learn's settings and formulas, as dasknn's."""
    params, first, second, n_steps = state
    # Without a check of each index, which a permutation does not need.
    X, y = (array.at[rows].get(mode="promise_in_bounds") for array in (X, y))
    grad = jax.grad(mean_loss)(params, X, y)
    n_steps += 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grad)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grad)
    rate = 1e-3 * jnp.sqrt(1 - 0.999**n_steps) / (1 - 0.9**n_steps)
    params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), params, first, second)
    return params, first, second, n_steps


def mean_loss(params, X, y):
    logits = forward(params, X)
    if logits.shape[1] == 1:
        return jnp.mean(jnp.logaddexp(0, logits[:, 0]) - y * logits[:, 0])
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))


def forward(params, X):
    for W, b in params[:-1]:
        X = jax.nn.relu(X @ W + b)
    W, b = params[-1]
    return X @ W + b
