"""Files on disk become pictures; nothing here knows a model."""
