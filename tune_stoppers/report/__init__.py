"""What people read: tables, and later pictures, of replays and experiments."""
