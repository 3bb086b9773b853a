"""A generalised model whose coefficients are estimated beside the random effects: `nagq=0`."""

from __future__ import annotations

from ..numerics.estimation import penalised
from .laplace import Laplace, program

WHY = "follows the maximum of a likelihood, which nagq=0 is not: fit with nagq=1"


class Penalised(Laplace):
    """Laplace's approximation with coefficients where the penalised likelihood has its largest
    value, theta alone outside.
    """

    name = "penalised"
    missing = Laplace.missing | dict.fromkeys(
        ("profiles", "bootstrap", "cross_validation", "deletion"), WHY
    )
    search = program(penalised.search)
    settle = program(penalised.settle)
    differences = program(penalised.joint_hessian)
