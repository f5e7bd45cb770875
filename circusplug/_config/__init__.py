"""From text to frozen, checked descriptions of a host and its plugins."""
