"""An experiment's folder, read without Ray: trials, journals, best states, requests to stop."""
