"""`python -m darkroom`, spawned by a worker node."""

from darkroom.process import follow_parent, take_pipes


def main() -> None:
    """Takes the pipes, and only then imports what could print."""
    lines_in, lines_out = take_pipes()
    follow_parent()

    from darkroom import logs
    from darkroom.backend import TorchBackend
    from darkroom.child import Child
    from darkroom.writer import Writer

    Child(lines_in, Writer(lines_out), TorchBackend(), logs.start()).run()


if __name__ == "__main__":
    main()
