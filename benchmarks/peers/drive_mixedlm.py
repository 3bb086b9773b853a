"""mixedlm (Rust). Variants: `fit`, `summary` (fit and print the table with Satterthwaite's
degrees of freedom).
"""

from protocol import serve


def prepare(data, spec, variant):
    from mixedlm import lmer

    def summary():
        result = lmer(spec["formula"], data)
        str(result.summary())
        return result

    return {"fit": lambda: lmer(spec["formula"], data), "summary": summary}[variant], describe


def describe(result):
    return {
        "deviance": float(result.REMLcrit())
        if callable(result.REMLcrit)
        else float(result.REMLcrit),
        "beta": result.beta,
        "theta": result.theta,
        "sigma": result.sigma,
        "converged": bool(result.converged),
        "evaluations": result.function_evals,
    }


serve(prepare, ["mixedlm"])
