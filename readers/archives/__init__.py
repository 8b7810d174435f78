"""Zips and tars, whose members are read by position."""
