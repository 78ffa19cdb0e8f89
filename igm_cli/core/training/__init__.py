"""Training of the composed model."""
