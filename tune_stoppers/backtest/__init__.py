"""Recorded sweeps run again under any Ray scheduler or stopper, in virtual time."""
