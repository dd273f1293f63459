"""The seven mask types of GLaMa (section 3.2), LaMa's masks, and their mixtures. Needs only NumPy.

A mask kind is a callable `(height, width, rng)` that returns bool H×W, True = missing. The same state of the generator
`rng` gives the same mask.
"""

from glama_deploy.masks.base import Mask
from glama_deploy.masks.named import MASKS_VERSION, MIXTURES, NAMED, RANDOM_TYPES, TYPES, by_name

__all__ = ["MASKS_VERSION", "MIXTURES", "NAMED", "RANDOM_TYPES", "TYPES", "Mask", "by_name"]
