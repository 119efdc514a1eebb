"""Tests of the embedded models and of what trained them."""
