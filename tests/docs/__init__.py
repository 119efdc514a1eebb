"""Tests of what is written: the examples run, the reference is complete."""
