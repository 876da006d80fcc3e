"""Recorded sweeps: tables of learning curves, read from files and from experiments without Ray."""
