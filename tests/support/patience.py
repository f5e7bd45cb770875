#: How long anything in a test may take before the test fails, in seconds: far longer than a busy
#: machine needs, as it only ever passes when something is broken.
PATIENCE = 40.0
