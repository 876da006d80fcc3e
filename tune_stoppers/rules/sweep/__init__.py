"""Rules that compare the trials of a sweep, one a file, and the parts they share."""
