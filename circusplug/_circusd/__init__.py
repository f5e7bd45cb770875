"""A real circusd as a managed child."""
