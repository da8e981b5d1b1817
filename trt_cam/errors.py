"""Every error that the library raises on purpose.

::

    TrtCamError
    ├── InputError             also ValueError   an argument, a picture or an array that cannot be used
    ├── UnsupportedModelError  also TypeError    a model that cannot carry what was asked of it
    ├── WeightsError           also OSError      a checkpoint that is missing, damaged or foreign
    ├── DatasetError           also ValueError   a data set whose files or lists do not fit together
    └── OutputError            also OSError      a place for results that cannot be written

A message is one line and says three things: what was needed, what came, what to do.
"""

from __future__ import annotations


class TrtCamError(Exception):
    """Root of the library's errors: catch this one to catch them all."""


class InputError(TrtCamError, ValueError):
    """An argument, a picture or an array that cannot be used."""


class UnsupportedModelError(TrtCamError, TypeError):
    """A model that cannot carry the method, layer or head asked of it."""


class WeightsError(TrtCamError, OSError):
    """A checkpoint that is missing, truncated, damaged or made for something else."""


class DatasetError(TrtCamError, ValueError):
    """A data set whose files, lists or annotations are missing or contradict each other."""


class OutputError(TrtCamError, OSError):
    """The place for results cannot be written."""
