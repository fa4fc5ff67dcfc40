"""Measuring: what batching buys on this machine, and what the service does under load.

arrivals.py, images.py   when requests are sent, and what is in them
generator.py, sender.py  the processes that send them, one of them; noop_server.py: what they are measured against
samples.py               what came back -> the figures of a run
status.py                what became of a request; refusals.py, deadline.py: the figures of those
load.py, sweep.py        runs, repeated -> a row; the highest rate that holds a bound
overload.py              a service at its peak and far beyond; bars.py: what it is to hold there
capacity.py              the peak; timeline.py, resident.py: the overload by the second, and the replicas' memory
forward.py               the device alone: batch sizes, networks, precisions, stages
isolated.py, memory.py   each of them in a process of its own, and the memory that it took
pipeline.py              decoding beside the device, without HTTP: the ceiling of a replica
times.py, simulation.py  what a service tells of its parts; what Poisson arrivals would make of them
plan.py, deploy_file.py  the settings that hold a bound, and the config file
compare.py, baselines/   the service beside the alternatives
gpu_report/              every figure that needs a GPU, against its bar, in one run
machine.py, figures.py   where a figure was taken, and how it is drawn; overload_figures.py: the overload
"""
