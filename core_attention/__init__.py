"""Floor 3: the shared attention layer, one mechanism a file behind one contract."""
