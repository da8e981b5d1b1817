"""Files that ship with the package: the embedded model and one photo."""
