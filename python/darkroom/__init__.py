"""The inference child of a Darkroom worker: JSON lines on its standard streams, pictures in files."""
