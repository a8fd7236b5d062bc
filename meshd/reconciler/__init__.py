"""The reconcile loop: take a snapshot, decide, act."""
