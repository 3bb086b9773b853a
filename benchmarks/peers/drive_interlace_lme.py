"""interlace-lme (imported as `interlace`). Variants: `fit`, `summary`."""

from protocol import serve


def prepare(data, spec, variant):
    import interlace

    random = [f"({effects} | {factor})" for effects, factor in spec["random"]]

    def fit():
        return interlace.fit(spec["fixed"], data, random=random, method="REML")

    def summary():
        result = fit()
        str(result.summary())
        return result

    return {"fit": fit, "summary": summary}[variant], describe


def describe(result):
    return {
        "deviance": -2 * float(result.llf),
        "beta": list(result.fe_params),
        "theta": result.theta,
        "sigma": float(result.scale) ** 0.5,
        "converged": bool(result.converged),
    }


serve(prepare, ["interlace-lme"])
