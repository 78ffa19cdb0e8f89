"""igm: understand scenes by inverting compositional generative models."""

__version__ = "0.1.0"
