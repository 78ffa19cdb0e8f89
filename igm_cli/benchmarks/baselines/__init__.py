"""What the papers compare with: networks that are trained to name the concepts of an image at once."""
