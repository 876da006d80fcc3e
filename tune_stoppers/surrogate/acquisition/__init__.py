"""Which configuration a free worker should run next."""
