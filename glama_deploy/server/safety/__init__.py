"""What keeps out what could harm: guards around the application, and limits on slow connections."""
