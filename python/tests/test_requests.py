"""The queue between the reader and the device thread."""

import logging
import threading
from types import SimpleNamespace

from darkroom.requests import Requests


class SlowWriter:
    """Takes its time over terminal frames."""

    def __init__(self):
        self.sent = []
        self.entered, self.gate = threading.Event(), threading.Event()

    def send(self, request_id, action, data):
        if data["type"] != "accepted":
            self.entered.set()
            assert self.gate.wait(5)
        self.sent.append((request_id, data["type"]))


def test_a_child_that_shuts_down_has_answered_what_waited_before_its_device_thread_ends():
    writer = SlowWriter()
    requests = Requests(writer, logging.getLogger("test"))
    tools = SimpleNamespace(request_id="1", action="inference.denoise", stop=None, model_keys=set(), session="s")
    requests.accept(tools)
    reader = threading.Thread(target=requests.close)
    reader.start()
    assert writer.entered.wait(5)
    device = threading.Thread(target=lambda: writer.sent.append(("device", requests.take())))
    device.start()
    device.join(0.2)
    writer.gate.set()
    reader.join(5)
    device.join(5)
    assert writer.sent == [("1", "accepted"), ("1", "released"), ("device", None)]
