"""Training of composed models."""
