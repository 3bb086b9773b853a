"""Batches of matrices on a processor, one after the other."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


def in_turn(function):
    """A function of matrices which `vmap` on a processor computes matrix by matrix; on other devices in a batch.

    It has no derivatives of its own in reverse mode: give it what is not differentiated, or a rule.
    """

    @custom_vmap
    def single(*args):
        return function(*args)

    @single.def_vmap
    def _(_, batched, *args):
        axes = [0 if b else None for b in batched]

        def one_by_one(*args):
            def one(lanes):
                lanes = iter(lanes)
                return single(*[next(lanes) if b else a for a, b in zip(args, batched, strict=True)])

            return lax.map(one, [a for a, b in zip(args, batched, strict=True) if b])

        made = lax.platform_dependent(*args, cpu=one_by_one, default=jax.vmap(function, axes))
        return made, jax.tree.map(lambda _: True, made)

    return single


eigh = in_turn(lambda M: tuple(jnp.linalg.eigh(M)))
triangular_factor = in_turn(lambda X: jnp.linalg.qr(X, mode="r"))
