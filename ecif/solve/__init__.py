"""Solving H·x = g by passes over the data, resumably, and what a solve reports of itself."""
