"""The family, and MONAI's networks beside it, trained alike on one data set and compared with their uncertainty."""
