"""Volumes in and out of files, with their geometry and header kept: NIfTI, data sets, phantoms."""
