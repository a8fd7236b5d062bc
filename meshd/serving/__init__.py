"""The accept loop of every listener of the daemon, and the bounds of connections: how many, of whom, for how long."""
