"""What the networks, prediction and training cost on a GPU: `make bench-gpu`."""
