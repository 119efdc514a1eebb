"""Tests of funlens; the folders mirror its floors."""
