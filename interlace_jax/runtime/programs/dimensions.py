"""Rows and columns of arguments that no container describes: per program one entry an argument."""

PACKAGE = "interlace_jax."
KERNELS, MANY = PACKAGE + "numerics.", PACKAGE + "many."
BASIS = {"X": "n p", "Z": "n", "w": "n", "R": "p p"}
DIMENSIONS = {
    KERNELS + "crossproducts.moments:moments": (None, "n", "n p", "n", "n", "n", None),
    KERNELS + "uncertainty.sensitivity:leverages": (None, None, "n p", "n", "n", None),
    KERNELS + "uncertainty.profile_limits:limits": ({"a": "_ p"}, None, None),
    MANY + "lanes:_deviances": (None, None, "r"),
    MANY + "lanes:_begin": (None, None, "r"),
    MANY + "lanes:_settle": (None, None, "r"),
    MANY + "lanes:_advance": (None, None, "r", None),
    MANY + "lanes:_finish": (None, None, "r", "r", "r", "r", "r"),
    MANY + "curvature:_derivatives": (None, None, "r", "r"),
    KERNELS + "crossproducts.moments:respond": (None, BASIS, "n r"),
    MANY + "responses:_prepare": (None, "n p", "n", "n", None),
    PACKAGE + "resampling.refits:_moments": (None, "n", "n p", "n", "r n", "n", None),
    PACKAGE + "diagnostics.influence:_user_thetas": ("r", None),
}
