"""Tests of funlens.data."""
