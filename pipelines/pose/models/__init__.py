"""Models of the pose domain."""
