"""Classification architectures, one a file."""
