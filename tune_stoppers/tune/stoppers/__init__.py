"""Rules as `ray.tune.Stopper`."""
