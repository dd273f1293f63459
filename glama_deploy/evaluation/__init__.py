"""The paper's evaluation (section 4) of checkpoints, bundles and classical inpainting, side by side."""
