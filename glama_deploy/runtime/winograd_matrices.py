"""The matrices of Winograd's method for 3×3 convolutions, which the engines on CPUs share.

With Aᵀ, G and Bᵀ, a kernel row g of three weights gives four neighbouring outputs of six inputs x with six products
(F(4, 3); Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equation 5):

    y = Aᵀ [(G g) · (Bᵀ x)]

The six values are those of polynomials at 0, ±3/4, ±3/2 and infinity. Along one side, their rounding error in bf16 is
1.3 times that of a direct convolution. With the usual points 0, ±1, ±2 it is 1.45 times (on the choice of points:
Barabasz et al., Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks, 2020).
"""

from __future__ import annotations

from functools import cache

import numpy as np

#: The points at which the polynomials are evaluated. Infinity is the sixth point.
EVALUATION_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

#: Outputs of one application of the method.
OUTPUTS_PER_TILE = 4

#: Products of one application of the method along one side.
VALUES_PER_TILE = OUTPUTS_PER_TILE + 2


@cache
def make_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the method's matrices.

    Aᵀ and G evaluate polynomials, Bᵀ is interpolation transposed. The divisors of the interpolation are in G, so the
    two others have few digits and are exact in bf16.

    Returns:
        Aᵀ [4, 6], G [6, 3] and Bᵀ [6, 6], float64.
    """

    def evaluate(coefficients: int) -> np.ndarray:
        finite = np.vander(EVALUATION_POINTS, coefficients, increasing=True)
        return np.vstack([finite, np.eye(1, coefficients, coefficients - 1)])

    others = [np.array([point - other for other in EVALUATION_POINTS if other != point]) for point in EVALUATION_POINTS]
    divisors = np.array([*(np.prod(differences) for differences in others), 1.0])
    interpolation = np.linalg.inv(evaluate(VALUES_PER_TILE)).T * divisors[:, None]
    return evaluate(OUTPUTS_PER_TILE).T, evaluate(3) / divisors[:, None], interpolation.round(12)
