"""Matching methods: one file each, a step over :class:`fastdd.debias.Segments`."""
