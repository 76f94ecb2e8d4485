"""The one mechanism a file."""
