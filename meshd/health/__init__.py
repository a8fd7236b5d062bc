"""What is true about the node's health: each file here is one check, a pure function from facts to conditions."""
