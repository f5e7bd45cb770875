"""How the log, and what plugins print, is written; `_logs` is what others use of it."""
