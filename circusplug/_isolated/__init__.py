"""All about ``isolate = true``: a plugin in a process of its own."""
