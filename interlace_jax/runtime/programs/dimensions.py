"""Rows and columns of arguments that no container describes: per program one entry an argument."""

PACKAGE = "interlace_jax."
KERNELS, MANY = PACKAGE + "numerics.", PACKAGE + "many."
QUESTIONS = dict.fromkeys("i j lengths is_correlation is_sigma psi others order".split(), "r")
QUESTIONS |= dict.fromkeys("reml centre unit minimum bound z first y H".split(), "r")
GENERALIZED, LAPLACE = KERNELS + "estimation.generalized:", PACKAGE + "engines.laplace:"
MODELS = PACKAGE + "models."
BY_ROW = "location mean slope variance derivatives log_density deviance_residuals".split()
BASIS = {"X": "n p", "Z": "n", "w": "n", "R": "p p"}
COEFFICIENTS = {"c": "p"}
SHARES = "p p", None, None  # what shares of variance are made of, where there are data
DIMENSIONS = {
    KERNELS + "crossproducts.moments:moments": (None, "n", "n p", "n", "n", "n", None),
    KERNELS + "uncertainty.sensitivity:leverages": (None, None, "n p", "n", "n", None),
    KERNELS + "uncertainty.delta:slopes": (None, None, "p", None, None, None, None, SHARES),
    KERNELS + "uncertainty.delta:propagate": (
        *(None, None, "p", None, None, "p p", None, None, None, SHARES),
    ),
    KERNELS + "uncertainty.delta:propagate_jointly": (
        *(None, None, None, "p", None, "+p +p", None, (*SHARES, "n")),
    ),
    KERNELS + "uncertainty.profile_limits:limits": (QUESTIONS | {"a": "r p"}, None),
    GENERALIZED + "search": (None, COEFFICIENTS, "+p +p", None),
    GENERALIZED + "facts": (None, COEFFICIENTS, None, None),
    GENERALIZED + "evaluate": (None, COEFFICIENTS, None),
    GENERALIZED + "settle": (None, COEFFICIENTS, None),
    GENERALIZED + "joint_hessian": (None, COEFFICIENTS, "+p +p", None),
    GENERALIZED + "mode_covariances": (None, COEFFICIENTS, None),
    LAPLACE + "_user": (COEFFICIENTS, None, None),
    LAPLACE + "_deviance": (None, "p", None, None, None),
    KERNELS + "uncertainty.curvature:parameter_covariance": ("s s",),
    **{KERNELS + f"families.rows:{what}_at": (None, "r", "r", "r") for what in BY_ROW},
    MODELS + "parameters:_factors_of_lanes": ("r", None),
    MODELS + "parameters:_natural_of_lanes": ("r", None),
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
