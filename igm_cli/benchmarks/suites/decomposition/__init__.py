"""Suite ``decomposition``: bound vectors taken apart, all methods on the same problems."""
