"""Triton kernels and their config table (installed as ``fastdd.kernels``)."""
