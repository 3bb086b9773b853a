"""Linear mixed models on JAX: lme4's formulas and numbers, exact derivatives, batches of fits."""

from .anova import anova as anova
from .checks import check as check
from .cross_validation import cross_val as cross_val
from .datasets import load_dataset as load_dataset
from .embedding import deviance as deviance
from .embedding import estimate as estimate
from .embedding import moments as moments
from .embedding import predict as predict
from .embedding import random_effects as random_effects
from .emmeans import emmeans as emmeans
from .errors import ConvergenceWarning as ConvergenceWarning
from .errors import RankWarning as RankWarning
from .errors import SingularFitWarning as SingularFitWarning
from .families import AR1 as AR1
from .families import BoundaryAvoiding as BoundaryAvoiding
from .families import CompoundSymmetry as CompoundSymmetry
from .families import Diagonal as Diagonal
from .families import HomogeneousDiagonal as HomogeneousDiagonal
from .families import Kernel as Kernel
from .families import Known as Known
from .families import Structure as Structure
from .families import Unstructured as Unstructured
from .hlm import hlm_augment as hlm_augment
from .hlm import hlm_influence as hlm_influence
from .hlm import hlm_resid as hlm_resid
from .many import Many as Many
from .model import Model as Model
from .model import compile as compile
from .model import fit as fit
from .model import fit_many as fit_many
from .power import power as power
from .result import Fit as Fit

__version__ = "0.1.0"
