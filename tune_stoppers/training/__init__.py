"""What runs inside a trial, or in a loop with no Ray at all."""
