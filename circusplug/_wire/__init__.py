"""circusd's language: events, commands, replies, endpoints, names; and the ssh tunnel."""
