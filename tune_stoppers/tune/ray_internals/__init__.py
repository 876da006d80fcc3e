"""Ray's private names, each with a test that fails when Ray changes it."""
