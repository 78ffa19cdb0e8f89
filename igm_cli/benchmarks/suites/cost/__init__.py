"""The benchmark ``cost``: what an inversion costs."""
