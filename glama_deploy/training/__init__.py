"""Train GLaMa and LaMa: config, data, losses, training steps, checkpoints and validation. Needs the extra `train`."""
