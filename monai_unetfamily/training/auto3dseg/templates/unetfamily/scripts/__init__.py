"""The scripts that Auto3DSeg runs."""
