"""What a report shows, as plain data."""
