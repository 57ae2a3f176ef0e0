"""What fastdd is measured beside: the structure of published code, and the best plain PyTorch."""
