"""Frames to a node that reads, and to one that does not."""

import os
import threading

import pytest

from darkroom.writer import AT_ONCE_BYTES, Writer


def _lines(ends: tuple[int, int]) -> tuple[Writer, list[bytes]]:
    """A writer into a pipe, and lines of all lengths, a hundred times as long together as it holds."""
    lines = [b"%d %s\n" % (i, b"x" * (i * 997 % (2 * AT_ONCE_BYTES))) for i in range(1600)]
    return Writer(ends[1]), lines


@pytest.fixture
def ends():
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_lines_come_in_order_and_whoever_sends_them_does_not_wait(ends):
    writer, lines = _lines(ends)
    for line in lines:
        writer.put(line)
    # Nobody has read any by now.
    read = b""
    while len(read) < sum(len(line) for line in lines):
        read += os.read(ends[0], 65_536)
    assert read == b"".join(lines)


def test_a_line_is_written_by_whoever_sends_it_where_the_pipe_takes_it(ends, monkeypatch):
    writer, _ = _lines(ends)
    writers = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (writers.append(threading.current_thread()), write(fd, data))[1])
    writer.put(b"short\n")
    writer.put(b"x" * AT_ONCE_BYTES + b"\n")
    writer.flush(5)
    assert [each is threading.current_thread() for each in writers] == [True, False]


def test_progress_that_waits_is_replaced_by_newer_of_the_same(ends):
    writer, lines = _lines(ends)
    for line in lines[:100]:
        writer.put(line)
    for i in range(5):
        writer.put(b"at %d\n" % i, "request run")
        writer.put(b"another %d\n" % i, "request load")
    expected = b"".join([*lines[:100], b"at 4\n", b"another 4\n"])
    read = b""
    while len(read) < len(expected):
        read += os.read(ends[0], 65_536)
    assert read == expected
