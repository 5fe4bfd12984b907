"""Recordings in, the same decisions out."""
