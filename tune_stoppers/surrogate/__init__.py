"""A model of the configurations: which of those not started yet promises most."""
