"""The journal: what was decided and why, on disk, and how to run it again."""
