"""The rows used with all that diagnostics say of them."""

import numpy as np
import pandas as pd
from helpers.fits import quiet_fit, sleepstudy
from numpy.testing import assert_allclose


def test_augment_gives_the_rows_used_with_everything_beside_them():
    frame = sleepstudy().set_index(pd.Index(range(1000, 1180)))
    frame.loc[1003, "Days"] = np.nan
    fit = quiet_fit("Reaction ~ Days + (Days | Subject)", frame)
    found = fit.augment()
    assert found.index.equals(fit.resid.index)
    assert_allclose(found["Reaction"] - found[".fitted"], found[".resid_conditional"])
    assert_allclose(found[".leverage_overall"], fit.leverage()["overall"])
    assert found[".cooksd"].notna().all()
    assert ".cooksd" not in fit.augment(None)
