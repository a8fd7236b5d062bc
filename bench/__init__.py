"""Timed figures of meshd as ratios to plain kubo and ipfs-cluster in the same run; see `python -m bench --help`."""
