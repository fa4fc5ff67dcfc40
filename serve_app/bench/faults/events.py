"""Every event that `serve-app bench faults` plays, in its order: what shares a layout stands together."""

from serve_app.bench.faults import kills, updates
from serve_app.bench.faults.event import Bar, Event
from serve_app.bench.faults.layout import BALANCED, FULL, PAIR, ROOM

UPDATE_S, LONG_UPDATE_S, LIVE_UPDATE_S, KILL_S = 90.0, 120.0, 75.0, 60.0

EVENTS = (
    Event("weights", PAIR, Bar.NOTHING, updates.weights, UPDATE_S),
    Event("code version", PAIR, Bar.NOTHING, updates.code_version, UPDATE_S),
    Event("user_config", PAIR, Bar.NOTHING, updates.user_config, LIVE_UPDATE_S),
    Event("scale down", PAIR, Bar.NOTHING, updates.scale_down, KILL_S),
    Event("kill replica", PAIR, Bar.VICTIM, kills.replica, KILL_S),
    Event("kill only HAProxy", PAIR, Bar.UNATTENDED, kills.head_haproxy, KILL_S),
    Event("kill node", PAIR, Bar.VICTIM, kills.node, KILL_S),
    Event("drain node", PAIR, Bar.NOTHING, kills.drain, KILL_S),
    Event("kill one HAProxy", BALANCED, Bar.VICTIM, kills.head_haproxy, KILL_S),
    Event("full GPU", FULL, Bar.NOTHING, updates.weights, LONG_UPDATE_S),
    Event("full GPU, surge", ROOM, Bar.NOTHING, updates.weights, LONG_UPDATE_S),
)
