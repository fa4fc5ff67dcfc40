"""Every event that `serve-app bench faults` plays, in its order: what shares a layout stands together."""

from serve_app.bench.faults import engines, kills, surroundings, updates, weights_file
from serve_app.bench.faults.event import Bar, Event
from serve_app.bench.faults.layout import BALANCED, BREAKABLE, FULL, OWN_CLOCK, PAIR, ROOM, SMALL_DISK

UPDATE_S, LONG_UPDATE_S, LIVE_UPDATE_S, KILL_S = 90.0, 120.0, 75.0, 60.0
FAULT_S, LASTING_S, MENDED_AFTER_S = 40.0, 50.0, 20.0
"""The latter two of what does not pass by itself."""

EVENTS = (
    Event("weights", PAIR, Bar.NOTHING, updates.weights, UPDATE_S),
    Event("code version", PAIR, Bar.NOTHING, updates.code_version, UPDATE_S),
    Event("user_config", PAIR, Bar.NOTHING, updates.user_config, LIVE_UPDATE_S),
    Event("scale down", PAIR, Bar.NOTHING, updates.scale_down, KILL_S),
    Event("kill replica", PAIR, Bar.VICTIM, kills.replica, KILL_S),
    Event("end replica", PAIR, Bar.VICTIM, kills.end_replica, FAULT_S),
    Event("kill controller", PAIR, Bar.NOTHING, kills.controller, FAULT_S),
    Event("end controller", PAIR, Bar.NOTHING, kills.end_controller, FAULT_S),
    Event("kill only HAProxy", PAIR, Bar.UNATTENDED, kills.head_haproxy, KILL_S),
    Event("end only HAProxy", PAIR, Bar.UNATTENDED, kills.end_head_haproxy, FAULT_S),
    Event("kill proxy manager", PAIR, Bar.UNATTENDED, kills.manager, FAULT_S),
    Event("kill fallback proxy", PAIR, Bar.NOTHING, kills.fallback, FAULT_S),
    Event("kill node", PAIR, Bar.VICTIM, kills.node, KILL_S),
    Event("drain node", PAIR, Bar.NOTHING, kills.drain, KILL_S),
    Event("kill one HAProxy", BALANCED, Bar.VICTIM, kills.head_haproxy, KILL_S),
    Event("engine raises", BREAKABLE, Bar.UNATTENDED, engines.raises, FAULT_S),
    Event("engine hangs", BREAKABLE, Bar.UNATTENDED, engines.hangs, FAULT_S),
    Event("engine says NaN", BREAKABLE, Bar.UNATTENDED, engines.says_nan, FAULT_S),
    Event("out of memory", BREAKABLE, Bar.NOTHING, engines.out_of_memory, LASTING_S, MENDED_AFTER_S),
    Event("weights gone", BREAKABLE, Bar.VICTIM, weights_file.gone, LASTING_S, MENDED_AFTER_S),
    Event("other weights", BREAKABLE, Bar.VICTIM, weights_file.others, LASTING_S, MENDED_AFTER_S),
    Event("garbage as weights", BREAKABLE, Bar.VICTIM, weights_file.garbage, LASTING_S, MENDED_AFTER_S),
    Event("full disk", SMALL_DISK, Bar.NOTHING, surroundings.full_disk, LASTING_S, MENDED_AFTER_S),
    Event("clock step", OWN_CLOCK, Bar.NOTHING, surroundings.clock_step, LASTING_S, MENDED_AFTER_S),
    Event("full GPU", FULL, Bar.NOTHING, updates.weights, LONG_UPDATE_S),
    Event("full GPU, surge", ROOM, Bar.NOTHING, updates.weights, LONG_UPDATE_S),
)
