"""Formulas that more than one part of the library needs: no model, no file, no state."""
