"""Levels, blocks and rules as data: the shipped specs."""
