"""The interfaces: our own, IOPaint's, lama-cleaner's, and their reference."""
