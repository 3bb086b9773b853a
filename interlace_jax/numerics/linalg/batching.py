"""Batches of matrices on a processor, one after the other."""

from __future__ import annotations

import functools

from ...support.later import Later, jax, jnp, lax

custom_batching = Later("jax.custom_batching")


def in_turn(function):
    """A function of matrices which `vmap` on a processor computes matrix by matrix; on other
    devices in a batch.

    It has no derivatives of its own in reverse mode: give it what is not differentiated, or a rule.
    """

    @functools.cache
    def made():
        return _single(function)

    return functools.wraps(function)(lambda *args: made()(*args))


def _single(function):
    @custom_batching.custom_vmap
    def single(*args):
        return function(*args)

    @single.def_vmap
    def _(_, batched, *args):
        axes = [0 if b else None for b in batched]

        def one_by_one(*args):
            def one(lanes):
                lanes = iter(lanes)
                return single(
                    *[next(lanes) if b else a for a, b in zip(args, batched, strict=True)]
                )

            return lax.map(one, [a for a, b in zip(args, batched, strict=True) if b])

        made = lax.platform_dependent(*args, cpu=one_by_one, default=jax.vmap(function, axes))
        return made, jax.tree.map(lambda _: True, made)

    return single


eigh = in_turn(lambda M: tuple(jnp.linalg.eigh(M)))
triangular_factor = in_turn(lambda X: jnp.linalg.qr(X, mode="r"))
