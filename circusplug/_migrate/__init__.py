"""Moving plugin sections to a file of their own, and back."""
