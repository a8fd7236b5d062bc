"""What every listener of the daemon shares: how many connections of whom, for how long, and one accept loop."""
