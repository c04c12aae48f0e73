"""Volumes and pictures in and out of files, geometry and header kept: NIfTI, PNG and TIFF, data sets, phantoms."""
