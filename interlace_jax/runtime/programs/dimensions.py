"""Rows and columns of arguments that no container describes: per program one entry an argument."""

KERNELS = "interlace_jax.numerics."
DIMENSIONS = {
    KERNELS + "crossproducts.moments:moments": (None, "n", "n p", "n", "n", "n", None),
    KERNELS + "uncertainty.sensitivity:leverages": (None, None, "n p", "n", "n", None),
    KERNELS + "uncertainty.profile_limits:limits": ({"a": "_ p"}, None, None),
}
