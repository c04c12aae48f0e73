"""Segmentation inside napari: volumes shown as radiologists see them, segmented by a bundle, saved on their grid."""
