"""What a service bears: hostile images and requests, faults, hours of load.

seeds.py          good images of every kind, small, made here
mutations.py      image -> hostile image, by a random generator
bombs.py          small images that take minutes or gigabytes
surface.py        hostile HTTP, as bytes for a socket; a case is made by seed and number
exchange.py       asks one case; answers.py judges what came
fuzz.py           thousands of cases against a service, beside good requests
decode_fuzz.py    the decoder by its coverage, in a process of its own: decode_target.py
hostile.py        cases at given times, beside good requests
soak.py           hours of load: good requests beside hostile.py's, watched by census.py, judged by soak_bars.py
census.py         memory, open files and threads of the service's processes, over time
trend.py          whether a figure grows
soak_bars.py      what a soak is to hold
soak_panels.py    its figure
report.py         what each command of a torture found -> one file, one exit status
"""
