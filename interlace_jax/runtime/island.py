"""float64 inside a float32 program."""

from __future__ import annotations

from ..support.later import jax, jnp
from .calls import own_rules


def island(function):
    """`function` computed in float64 inside a float32 program: wider inside, the caller's dtype
    outside.

    A transposed program runs outside the 64-bit context, so the derivative rule is recursive: the
    tangent is an island of the Jacobian, and every order is evaluated inside. Takes arrays and
    returns a pytree of them; in 64-bit mode it is the function. Whole numbers count as the same
    numbers in JAX's own precision.
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
        jacobian = island(jax.jacrev(function, argnums=tuple(range(len(primals)))))
        found, jacobians = inside(*primals), jacobian(*primals)

        def product(_, along):
            return sum(jnp.tensordot(J, t, t.ndim) for J, t in zip(along, tangents, strict=True))

        return found, jax.tree.map(product, found, jacobians)

    def call(*args):
        with own_rules():
            return inside(*map(floating, args))

    return call


def floating(values):
    """Numbers of any kind as an array of floats: floats as they are, others in JAX's own precision;
    None stays.

    Raises TypeError for complex numbers, and for what is no number.
    """
    if values is None:
        return None
    values = jnp.asarray(values)
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise TypeError("complex numbers have no place in a mixed model: give real ones")
    return (
        values
        if jnp.issubdtype(values.dtype, jnp.floating)
        else values.astype(jnp.result_type(float))
    )
