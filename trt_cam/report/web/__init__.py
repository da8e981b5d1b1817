"""The page of a run: its frame, its style, its scripts."""
