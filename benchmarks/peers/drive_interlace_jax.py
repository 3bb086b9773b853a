"""This package. Variants: `compiled` (only the fit of a compiled model), `fit`, `summary` (fit
and print the table).
"""

from time import perf_counter

from protocol import serve


def prepare(data, spec, variant):
    import interlace_jax as interlace

    def fit():
        return interlace.fit(spec["formula"], data, method="REML")

    def summary():
        result = interlace.fit(spec["formula"], data, method="REML")
        str(result.summary())
        return result

    if variant == "compiled":
        start = perf_counter()
        model = interlace.compile(spec["formula"], data)
        prepared = {"prepare_s": perf_counter() - start}
        return lambda: model.fit("REML"), lambda result: describe(result) | prepared
    return {"fit": fit, "summary": summary}[variant], describe


def describe(result):
    return {
        "deviance": float(result.deviance),
        "beta": list(result.fe_params),
        "theta": list(result.theta),
        "sigma": float(result.sigma),
        "converged": bool(result.converged),
        "evaluations": int(result.optimum.steps),
    }


serve(prepare, ["interlace_jax", "jax", "jaxlib", "formulaic"])
