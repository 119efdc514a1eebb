"""Ratios of design section 7, in one process."""
