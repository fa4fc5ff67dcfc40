"""Everything that a GPU decides, measured in one go: the rows of `serve-app bench gpu-report`.

tasks.py      which rows there are, in order of importance; verdicts.py  what follows from several of them
report.py     runs them within a budget of time, and keeps what each one said; task.py  what a row is
line.py       a figure, its bar, its verdict; known.py  figures that later rows are made of
subject.py    the network and the device; scale.py  batch sizes, rates and times, full and toy

ceilings.py, network.py, startup.py, image_path.py, overlap.py, fidelity.py    rows without a service
service.py, open_loop.py, tutorial.py    rows over HTTP
padding.py    what rounding a batch up costs
gpu.py        the GPU's name and driver; caches.py  where compiled code goes; leftovers.py  what a row left running
"""
