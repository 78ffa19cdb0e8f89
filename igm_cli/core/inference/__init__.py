"""Inference: which concepts explain an image."""
