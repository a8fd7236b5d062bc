"""The one HTTP kernel: what a route is, what its handler gets and gives, and the one seam from error to answer."""
