"""Linear mixed models on JAX: lme4's formulas and numbers, exact derivatives, batches of fits."""

import importlib as _importlib
import types as _types
from typing import TYPE_CHECKING as _TYPE_CHECKING

from .batch import GeneralizedMany as GeneralizedMany
from .batch import Many as Many
from .datasets import load_dataset as load_dataset
from .design.residual_formula import Power as Power
from .design.residual_formula import Residual as Residual
from .diagnostics.check import check as check
from .diagnostics.hlmdiag import hlm_augment as hlm_augment
from .diagnostics.hlmdiag import hlm_influence as hlm_influence
from .diagnostics.hlmdiag import hlm_resid as hlm_resid
from .fitting import Model as Model
from .fitting import compile as compile
from .fitting import fit as fit
from .fitting import fit_many as fit_many
from .functional import deviance as deviance
from .functional import estimate as estimate
from .functional import log_likelihood as log_likelihood
from .functional import moments as moments
from .functional import predict as predict
from .functional import random_effects as random_effects
from .generalized import GeneralizedFit as GeneralizedFit
from .inference.average_effects import comparisons as comparisons
from .inference.average_effects import predictions as predictions
from .inference.average_effects import slopes as slopes
from .inference.likelihood_ratio import anova as anova
from .inference.marginal_means import emmeans as emmeans
from .numerics.covariance.across import Kernel as Kernel
from .numerics.covariance.across import Known as Known
from .numerics.covariance.correlations import ARMA11 as ARMA11
from .numerics.covariance.correlations import Antedependence as Antedependence
from .numerics.covariance.correlations import Exponential as Exponential
from .numerics.covariance.correlations import Matern as Matern
from .numerics.covariance.correlations import SquaredExponential as SquaredExponential
from .numerics.covariance.correlations import Toeplitz as Toeplitz
from .numerics.covariance.structures import AR1 as AR1
from .numerics.covariance.structures import BoundaryAvoiding as BoundaryAvoiding
from .numerics.covariance.structures import CompoundSymmetry as CompoundSymmetry
from .numerics.covariance.structures import Diagonal as Diagonal
from .numerics.covariance.structures import HomogeneousDiagonal as HomogeneousDiagonal
from .numerics.covariance.structures import Structure as Structure
from .numerics.covariance.structures import Unstructured as Unstructured
from .numerics.families.family import Bernoulli as Bernoulli
from .numerics.families.family import Beta as Beta
from .numerics.families.family import BetaBinomial as BetaBinomial
from .numerics.families.family import Binomial as Binomial
from .numerics.families.family import Family as Family
from .numerics.families.family import Gamma as Gamma
from .numerics.families.family import Gaussian as Gaussian
from .numerics.families.family import InverseGaussian as InverseGaussian
from .numerics.families.family import NegativeBinomial as NegativeBinomial
from .numerics.families.family import Ordinal as Ordinal
from .numerics.families.family import Poisson as Poisson
from .numerics.families.family import Student as Student
from .numerics.families.family import Truncated as Truncated
from .reporting.equations import equation as equation
from .reporting.sentences import report as report
from .reporting.tables import compare as compare
from .reporting.tables import table as table
from .resampling.cross_validation import cross_val as cross_val
from .resampling.power import power as power
from .result import Fit as Fit
from .saving import SavedFit as SavedFit
from .saving import load as load
from .support.table import Table as Table
from .support.warnings import ConvergenceWarning as ConvergenceWarning
from .support.warnings import RankWarning as RankWarning
from .support.warnings import SeparationWarning as SeparationWarning
from .support.warnings import SingularFitWarning as SingularFitWarning

__version__ = "0.1.0"

_DOORS = ("plot", "sklearn", "nnx", "eqx", "numpyro")


def __dir__() -> list[str]:
    """What is public; the rooms that make it up are left out."""
    own = (n for n, v in globals().items() if not isinstance(v, _types.ModuleType))
    return sorted({*(n for n in own if not n.startswith("_")), *_DOORS, "__version__"})


if not _TYPE_CHECKING:

    def __getattr__(name: str):
        """The modules that are imported when asked for; methods of fits are named as such."""
        if name in _DOORS:
            return _importlib.import_module(f"{__name__}.{name}")
        hint = f"; it is a method of a fit: fit.{name}" if hasattr(Fit, name) else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
