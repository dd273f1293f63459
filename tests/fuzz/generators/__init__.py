"""One module for each subject: valid inputs, mutations of them, and the check of what was read."""
