"""Arrays in GPU memory that are exchanged with other packages."""
