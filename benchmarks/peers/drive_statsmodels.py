"""statsmodels' MixedLM, for models with one grouping factor. Variants: `fit`, `summary`."""

from protocol import serve


def prepare(data, spec, variant):
    from statsmodels.formula.api import mixedlm

    [(effects, factor)] = spec["random"]

    def fit():
        return mixedlm(spec["fixed"], data, groups=data[factor], re_formula=f"~ {effects}").fit(
            reml=True
        )

    def summary():
        result = fit()
        str(result.summary())
        return result

    return {"fit": fit, "summary": summary}[variant], describe


def describe(result):
    return {
        "deviance": -2 * float(result.llf),
        "beta": result.fe_params.to_numpy(),
        "covariance": result.cov_re.to_numpy(),
        "sigma": float(result.scale) ** 0.5,
        "converged": bool(result.converged),
    }


serve(prepare, ["statsmodels"])
