"""The steps of ``make_embedded_model.py``: views, features, maps, heads, thresholds."""
