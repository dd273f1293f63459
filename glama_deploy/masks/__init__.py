"""The seven mask types of GLaMa (section 3.2), LaMa's masks, and their mixtures: numpy only.

A mask is a callable `(height, width, rng) -> bool H×W`, True where pixels are missing. The same state of the
generator gives the same mask.
"""

from glama_deploy.masks.base import Mask
from glama_deploy.masks.named import DEFINITIONS, MIXTURES, NAMED, RANDOM_TYPES, TYPES, by_name

__all__ = ["DEFINITIONS", "MIXTURES", "NAMED", "RANDOM_TYPES", "TYPES", "Mask", "by_name"]
