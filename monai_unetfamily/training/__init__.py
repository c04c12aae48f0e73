"""Training: a bundle's own MONAI workflow, watched and made safe."""
