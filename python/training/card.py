"""The model card."""


def write(run, folder):
    """Nothing yet."""
