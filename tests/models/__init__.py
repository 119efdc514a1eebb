"""The table of what was verified, written by running."""
