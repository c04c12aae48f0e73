"""MONAI bundles: opened, checked, written."""
