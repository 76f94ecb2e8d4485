"""Speech recognition architectures and the layers that they share."""
