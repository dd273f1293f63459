"""The seven mask types of GLaMa, LaMa's masks, and their mixtures."""
