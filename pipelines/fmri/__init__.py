"""fMRI: 4-D scans to labels, numbers, vectors and maps."""
