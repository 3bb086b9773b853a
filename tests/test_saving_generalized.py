"""Saved generalised fits predict as the fits did, on every scale and with their intervals."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace

ROWS = pd.read_csv(Path(__file__).parent / "reference" / "generalized" / "rows.csv")
FITS = {
    "cbind": (
        "cbind(successes, m - successes) ~ x + poly(z, 2) + (1 | g)",
        dict(family="binomial"),
    ),
    "text": ("answer ~ x + (1 + x | g)", dict(family=interlace.Binomial("probit"))),
    "offset": (
        "count ~ x + offset(log(exposure)) + (1 | g)",
        dict(family="nbinom2", dispersion="~ x"),
    ),
    "zeros": ("zeros ~ x + (1 | g)", dict(family="poisson", zero_inflation="~ x")),
    "hurdle": ("zeros ~ x + (1 | g)", dict(family="truncated_poisson", zero_inflation="~ 1")),
    "ordinal": ("rating ~ x + (1 | g)", dict(family="ordinal")),
}


def rows():
    rating = pd.Categorical(ROWS["rating"], ["never", "rarely", "often", "always"], ordered=True)
    return ROWS.assign(rating=rating, answer=np.where(ROWS["binary"] > 0, "yes", "no"))


@pytest.fixture(scope="module", params=FITS)
def pair(request, tmp_path_factory):
    """A fit and itself from its file."""
    formula, arguments = FITS[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = interlace.fit(formula, rows(), **arguments)
    path = tmp_path_factory.mktemp("saved") / "fit.npz"
    fit.save(path)
    assert path.stat().st_size < 20_000
    return fit, interlace.load(path)


def test_predictions_are_those_of_the_fit(pair):
    fit, saved = pair
    new = rows().head(20)
    new.loc[3, "g"] = "somebody new"
    options = [dict(), dict(type="link"), dict(marginal=True), dict(unseen="average")]
    options.append(dict(type="link", include_re=False, interval="confidence"))
    if fit.family.name != "ordinal":
        options.append(dict(include_re=False, interval="confidence"))
        options.append(dict(marginal=True, interval="confidence", level=0.9))
    for chosen in options:
        expected = fit.predict(new, **chosen)
        found = saved.predict(new, **chosen)
        assert type(found) is type(expected)
        assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_tables_are_those_of_the_fit(pair):
    fit, saved = pair
    pd.testing.assert_frame_equal(saved.family_params, fit.family_params)
    pd.testing.assert_series_equal(saved.fe_pvalues, fit.fe_pvalues)
    assert saved.family == fit.family and saved.deviance == fit.deviance
    assert saved.summary() == str(fit.summary())
    assert_allclose(saved.random_effects["g"], fit.random_effects["g"])
    with pytest.raises(AttributeError, match="'resid' needs the data"):
        saved.resid  # noqa: B018
    with pytest.raises(
        (AttributeError, ValueError), match="needs the data|takes a fit|no 'simulate'"
    ):
        saved.simulate()


def test_families_of_ones_own_are_refused(tmp_path):
    def log_density(y, mu):
        return -((y - mu) ** 2)

    family = interlace.Family("own", log_density)
    fit = interlace.fit("positive ~ x + (1 | g)", ROWS, family=family)
    with pytest.raises(
        ValueError, match="a file cannot hold Family objects: pickle the fit instead"
    ):
        fit.save(tmp_path / "fit.npz")


def test_two_families_of_ones_own_are_two_models():
    """Programs are kept by what they compute, not by the name and the link of a family."""
    deviances = []
    for scale in (0.5, 2.0):
        family = interlace.Family("own", lambda y, mu, scale=scale: -scale * (y - mu) ** 2)
        fit = interlace.fit("positive ~ x + (1 | g)", ROWS, family=family)
        deviances.append(fit.deviance)
        e = fit.estimate
        assert fit.model.deviance(e.theta, e.beta) == pytest.approx(fit.deviance, rel=1e-6)
    assert deviances[1] > 2.0 * deviances[0]
