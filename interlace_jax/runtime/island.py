"""float64 inside a float32 program."""

from __future__ import annotations

from ..support.later import jax, jnp


def island(function):
    """`function` computed in float64 inside a float32 program: wider inside, the caller's dtype outside.

    A transposed program runs outside the 64-bit context, so the derivative rule is recursive: the tangent is an island
    of the Jacobian, and every order is evaluated inside. Takes arrays and returns a pytree of them; in 64-bit mode it
    is the function.
    """

    def wide(*args):
        if jax.config.jax_enable_x64:
            return function(*args)
        dtype = jnp.result_type(*args)
        with jax.enable_x64(True):
            found = function(*(jnp.asarray(a).astype(jnp.float64) for a in args))
            return jax.tree.map(lambda a: a.astype(dtype), found)

    inside = jax.custom_jvp(wide)

    @inside.defjvp
    def _(primals, tangents):
        found, jacobians = inside(*primals), island(jax.jacrev(function, argnums=tuple(range(len(primals)))))(*primals)

        def product(_, along):
            return sum(jnp.tensordot(J, t, t.ndim) for J, t in zip(along, tangents, strict=True))

        return found, jax.tree.map(product, found, jacobians)

    return inside
