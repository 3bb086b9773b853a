"""Plots by plotnine: every function returns a ggplot, to which the user can add.

Import it as `from interlace_jax import plot`; it needs plotnine, an optional dependency.
"""

try:
    import plotnine  # noqa: F401 - asked for before the modules below need it
except ImportError as err:
    raise ImportError("interlace_jax.plot needs plotnine: python -m pip install plotnine") from err

from .diagnostics import influence as influence
from .diagnostics import qq as qq
from .diagnostics import residuals as residuals
from .diagnostics import rootogram as rootogram
from .many import heatmap as heatmap
from .many import volcano as volcano
from .maps import clusters as clusters
from .maps import curve as curve
from .maps import slices as slices
from .maps import topography as topography
from .maps import variance_fractions as variance_fractions
from .parameters import coefficients as coefficients
from .parameters import density as density
from .parameters import effects as effects
from .parameters import emmeans as emmeans
from .parameters import profile as profile
from .parameters import variance_components as variance_components
from .random_effects import caterpillar as caterpillar
from .random_effects import fitted_lines as fitted_lines
from .random_effects import shrinkage as shrinkage
from .repeated import correlation_by_lag as correlation_by_lag
from .repeated import sd_by_visit as sd_by_visit
