"""Semantic decomposition: a bound vector into one codeword of every codebook (Yeung et al. 2026)."""
