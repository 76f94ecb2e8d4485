"""Floor 1: reading formats, data sets, splits and embedded samples; knows nothing of models."""
