"""The host: which plugins run, when they are restarted, how all of it stops."""
