"""From a bundle and a volume to labels on the volume's own grid, and to pictures of them."""
