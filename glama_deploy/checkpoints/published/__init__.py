"""Published checkpoints: their catalogue, and the files that are downloaded, verified and kept."""
