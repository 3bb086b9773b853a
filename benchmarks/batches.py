"""A training step of a layer of random effects: the exact gradient of all rows against batches.

    python benchmarks/batches.py [most rows, 1e6 by default]

Groups of ten rows with an intercept and a slope each; batches of 256 whole groups. Milliseconds of
the least of seven steps, compiled, with their gradient; and what 64 batches say of the gradient by
log sigma, scaled up, beside the exact one.
"""

import sys
import time

import jax
import numpy as np

from interlace_jax.layers.batches import batch_nll, batches_of_groups
from interlace_jax.layers.effects import read_rows, start
from interlace_jax.layers.factors import Factors

ROWS, SIZE = 10, 256


def milliseconds(function, *args):
    """The least of seven calls, after one that compiles."""
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - begun)
    return 1e3 * min(times[1:])


def main(most):
    jax.config.update("jax_enable_x64", True)
    gradient = jax.jit(jax.grad(batch_nll), static_argnums=1)
    print(f"{'rows':>10} {'all, ms':>9} {'batch, ms':>9} {'exact':>12} {'batches':>12} {'+-':>8}")
    for n in (10**k for k in range(4, 9) if 10**k <= most):
        rng = np.random.default_rng(0)
        groups = n // ROWS
        codes = np.repeat(np.arange(groups), ROWS)
        x = rng.standard_normal(n)
        b = rng.standard_normal((groups, 2))[codes]
        y = b[:, 0] + 0.5 * b[:, 1] * x + 0.5 * rng.standard_normal(n)
        factors = Factors.of({"g": groups}, {"g": 1})
        rows = read_rows(factors, y, {"g": codes}, {"g": x})
        small = factors.with_levels({"g": min(SIZE, groups)})
        found = []
        for batch, _ in zip(batches_of_groups({"g": codes}, "g", SIZE), range(64), strict=False):
            features = {"g": x[batch.rows]}
            part = read_rows(small, y[batch.rows], batch.groups, features, batch.mask)
            found.append(gradient(start(factors), small, part, None, batch.scale).log_sigma)
        exact = gradient(start(factors), factors, rows).log_sigma
        full = milliseconds(gradient, start(factors), factors, rows)
        one = milliseconds(gradient, start(factors), small, part, None, batch.scale)
        found = np.array(found)
        error = found.std() / len(found) ** 0.5
        print(f"{n:>10,} {full:9.2f} {one:9.2f} {exact:12.1f} {found.mean():12.1f} {error:8.1f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e6)
