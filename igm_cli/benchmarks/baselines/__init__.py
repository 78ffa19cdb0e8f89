"""The papers' baselines: networks trained to name the concepts of an image at once."""
