"""Linear mixed models on JAX: lme4's formulas and numbers, exact derivatives, batches of fits."""

from .datasets import load_dataset as load_dataset
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
from .functional import moments as moments
from .functional import predict as predict
from .functional import random_effects as random_effects
from .inference.likelihood_ratio import anova as anova
from .inference.marginal_means import emmeans as emmeans
from .many.many import Many as Many
from .numerics.covariance.across import Kernel as Kernel
from .numerics.covariance.across import Known as Known
from .numerics.covariance.structures import AR1 as AR1
from .numerics.covariance.structures import BoundaryAvoiding as BoundaryAvoiding
from .numerics.covariance.structures import CompoundSymmetry as CompoundSymmetry
from .numerics.covariance.structures import Diagonal as Diagonal
from .numerics.covariance.structures import HomogeneousDiagonal as HomogeneousDiagonal
from .numerics.covariance.structures import Structure as Structure
from .numerics.covariance.structures import Unstructured as Unstructured
from .reporting.equations import equation as equation
from .reporting.sentences import report as report
from .reporting.tables import compare as compare
from .reporting.tables import table as table
from .resampling.cross_validation import cross_val as cross_val
from .resampling.power import power as power
from .result import Fit as Fit
from .support.table import Table as Table
from .support.warnings import ConvergenceWarning as ConvergenceWarning
from .support.warnings import RankWarning as RankWarning
from .support.warnings import SingularFitWarning as SingularFitWarning

__version__ = "0.1.0"
