"""Training on Lightning Fabric: exact resume, atomic checkpoints, signals, launch by torchrun."""
