"""What picture files hold beside pixels: read from the input, corrected, and written into the output."""
