"""Counts once a second, for as long as it is let."""

import signal
import threading

import kv

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())

while not stop.is_set():
    count = kv.ask("INCR", "count")
    if int(count) % 10 == 1:
        print("counted to", count, flush=True)
    stop.wait(1)
