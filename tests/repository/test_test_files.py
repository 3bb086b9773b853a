"""Every source file has its test file, where a stranger looks for it."""

from pathlib import Path

import pytest

import interlace_jax

PACKAGE = Path(interlace_jax.__file__).parent
TESTS = Path(__file__).parents[1]
SOURCES = [
    path.relative_to(PACKAGE).as_posix()
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
]
FAMILIES = "numerics/families/test_rows.py"  # one list of claims for all distributions and links
GENERALIZED = "test_generalized.py"
VISITS = "inference/test_repeated_measures.py"
TESTED_IN = {
    "arrays/moments.py": "test_functional.py",
    "arrays/precision.py": "transforms/test_dtypes.py",
    "arrays/simulation.py": "bayes/test_bayes.py",
    "batch.py": "many/test_many.py",
    "bayes/arviz.py": "bayes/test_bayes.py",
    "bayes/log_density.py": "bayes/test_bayes.py",
    "design/selection.py": "resampling/test_regrouping.py",
    "diagnostics/response_residuals.py": "diagnostics/test_generalized_findings.py",
    "engines/laplace.py": GENERALIZED,
    "engines/penalised.py": GENERALIZED,
    "engines/packing.py": "engines/test_chunked_moments.py",
    "engines/residual_packing.py": VISITS,
    "fitting.py": "test_robustness.py",
    "inference/family_parameters.py": GENERALIZED,
    "inference/response_prediction.py": GENERALIZED,
    "inference/row_variances.py": "inference/test_prediction.py",
    "layers/likelihoods.py": "test_eqx.py",
    "many/dimensions.py": "doors/test_xarray.py",
    "many/laplace.py": "many/test_generalized.py",
    "maps/predictor_files.py": "maps/test_scan.py",
    "maps/variance_slopes.py": "maps/test_scan.py",
    "models/covariance.py": "diagnostics/test_residuals.py",
    "models/fitted.py": "test_result.py",
    "models/generalized.py": GENERALIZED,
    "models/residual.py": VISITS,
    "models/response.py": GENERALIZED,
    "models/separation.py": GENERALIZED,
    "numerics/covariance/across.py": "numerics/covariance/test_structures.py",
    "numerics/crossproducts/traced_plan.py": "arrays/test_groups.py",
    "numerics/crossproducts/whitening.py": "numerics/crossproducts/test_row_pairs.py",
    "numerics/estimation/generalized.py": GENERALIZED,
    "numerics/estimation/residual_start.py": VISITS,
    "numerics/families/continuous.py": FAMILIES,
    "numerics/families/density.py": FAMILIES,
    "numerics/families/discrete.py": FAMILIES,
    "numerics/families/links.py": FAMILIES,
    "numerics/families/mixtures.py": FAMILIES,
    "numerics/families/ordinal.py": FAMILIES,
    "numerics/likelihood/gaussian.py": "numerics/likelihood/test_elimination.py",
    "numerics/likelihood/quadrature.py": GENERALIZED,
    "numerics/likelihood/stochastic_effects.py": "engines/test_iterative.py",
    "numerics/uncertainty/kenward_roger_2009.py": "against/test_residual_references.py",
    "numerics/uncertainty/row_information.py": "inference/test_prediction.py",
    "plot/generalized.py": "plot/test_generalized_plots.py",
    "plot/maps.py": "plot/test_map_plots.py",
    "plot/regions.py": "plot/test_map_plots.py",
    "plot/repeated.py": "plot/test_repeated_data.py",
    "reporting/family_equations.py": "reporting/test_generalized_reports.py",
    "resampling/folds.py": "resampling/test_cross_validation.py",
    "resampling/generalized_refits.py": "resampling/test_generalized_folds.py",
    "runtime/compilation.py": "runtime/test_calls.py",
    "runtime/devices.py": "engines/test_processes.py",
    "runtime/island.py": "runtime/test_calls.py",
    "runtime/programs/dimensions.py": "runtime/programs/test_tiers.py",
    "runtime/programs/operations.py": "runtime/programs/test_numpy_code.py",
    "runtime/programs/trace.py": "runtime/programs/test_tiers.py",
    "sklearn/classifier.py": "test_sklearn.py",
    "sklearn/encoder.py": "test_sklearn_effects.py",
    "sklearn/estimator.py": "test_sklearn.py",
    "sklearn/frames.py": "test_sklearn.py",
    "sklearn/mixed_effects.py": "test_sklearn_effects.py",
    "sklearn/regressor.py": "test_sklearn.py",
}
"Files whose claims stand in another test file, as they show themselves only from outside."


def own(source):
    folder, _, name = source.rpartition("/")
    return f"{folder}/test_{name}".lstrip("/")


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_file_has_its_test_file(source):
    assert (TESTS / TESTED_IN.get(source, own(source))).exists()


def test_exceptions_are_needed():
    assert set(TESTED_IN) <= set(SOURCES)
    assert not [source for source in TESTED_IN if (TESTS / own(source)).exists()]
