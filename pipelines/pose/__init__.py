"""3-D human pose: joints in images over time to joints in space."""
