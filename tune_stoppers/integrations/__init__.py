"""Where fine-tunes are configured by files: a rule as a line of text, and the plug-ins for it."""
