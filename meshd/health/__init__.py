"""The node's health: checks, the board of active warnings, the audit of the running programs, the doctor."""
