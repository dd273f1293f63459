"""What this machine has, which engines run on it, and why the others do not. Bug reports begin with this."""
