"""The seam between host and plugin: what a runner is, and the one on a thread."""
