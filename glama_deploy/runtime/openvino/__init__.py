"""OpenVINO: the runner, and the rewrites of its graphs."""
