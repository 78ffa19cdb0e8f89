"""Semantic decomposition of a bound vector into one codeword per codebook (Yeung et al. 2026)."""
