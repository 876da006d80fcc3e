"""Before `Tuner.restore` reads a snapshot: what a kill tore or lost is mended."""
