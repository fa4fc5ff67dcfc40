"""Serve a ResNet on Ray: photos in over HTTP, classes out, batched from live traffic."""

import os

# Read when torch is loaded. Its idle threads spin 300,000 times before they sleep: beside any other busy thread or
# process, one that waits keeps the core from one that works. Images/s of a resnet18 on two cores, one by one, and
# with one of the cores busy: as it is 188 and 42, with this 182 and 80, without any spinning 140 and 98.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Read when a process starts, so by those that this one starts: see engine/cpu.py, _keep_freed_memory.
os.environ.setdefault("MALLOC_ARENA_MAX", "1")
