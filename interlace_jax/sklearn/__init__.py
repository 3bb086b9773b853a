"""Mixed models as estimators of scikit-learn, for pipelines, grid search and cross-validation;
needs scikit-learn.
"""

try:
    from sklearn.utils.validation import validate_data as _needed  # noqa: F401
except ImportError as err:
    raise ImportError(
        "interlace_jax.sklearn needs scikit-learn 1.6 or newer: python -m pip install scikit-learn"
    ) from err

from .classifier import MixedModelClassifier as MixedModelClassifier
from .encoder import RandomEffectsEncoder as RandomEffectsEncoder
from .mixed_effects import MixedEffects as MixedEffects
from .regressor import MixedModelRegressor as MixedModelRegressor
