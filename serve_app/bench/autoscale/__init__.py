"""Whether replicas follow the load: a service under traffic that rises and falls, watched meanwhile.

traffic.py    the shapes of traffic: step, ramp, spike
serve_api.py  what Ray Serve's REST API says of the replicas; watch.py  a thread that asks it, and the replicas
history.py    what was seen of the replicas, and the figures in it
trial.py      one shape of traffic sent to one service; bars.py  what it is to hold; panels.py  its figure
"""
