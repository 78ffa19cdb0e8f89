"""Semantic decomposition: a bound vector into one codeword of each codebook (Yeung et al. 2026)."""
