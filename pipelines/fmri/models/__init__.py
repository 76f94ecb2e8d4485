"""Models of the fMRI domain."""
