"""Rules that look across trials, as `ray.tune.schedulers.TrialScheduler`; one a file."""
