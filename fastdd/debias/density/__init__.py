"""Bias that no one has labelled: an embedding of it, densities there, and the weights and clusters that they give."""
