"""Pictures of results: the only code that draws."""
