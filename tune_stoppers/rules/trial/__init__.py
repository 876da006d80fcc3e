"""Rules that judge each trial by itself, one a file."""
