"""Data sets of the domains: windows, splits without leaks, scaling."""
