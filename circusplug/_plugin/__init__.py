"""One plugin's life on the thread it is on."""
