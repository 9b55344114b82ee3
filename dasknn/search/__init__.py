"""Searches over settings of networks."""
