"""Architectures of document matching, one a file."""
