"""Keys of a Ray result that more than one room reads, as constants: nothing here imports Ray.

A test compares those that are Ray's with `ray.tune.result`.
"""

TRAINING_ITERATION = "training_iteration"
TIME_TOTAL_S = "time_total_s"
TIME_THIS_ITER_S = "time_this_iter_s"
TIMESTAMP = "timestamp"
PID = "pid"
DONE = "done"
SHOULD_CHECKPOINT = "should_checkpoint"
SINCE_RESTORE = "iterations_since_restore"  # reports since the trial's process last started
CHECKPOINT_NAME = "checkpoint_dir_name"  # the folder of the checkpoint that came with a result
TRAIN_CHECKPOINT = "checkpoint_path"  # the metric under which Ray Train hands Tune a checkpoint
STOP_REASON = "stop_reason"  # ours: why the trial is stopped at this report
WOULD_STOP_REASON = "would_stop_reason"  # the same under `dry_run`, where the trial continues

# what Ray takes from a checkpoint's result when a trial starts from it: its clocks
CLOCKS = (TRAINING_ITERATION, TIME_TOTAL_S, "timesteps_total", "episodes_total")

# what Ray adds to every result by itself
RAYS_OWN = frozenset(
    {
        *CLOCKS,
        TIME_THIS_ITER_S,
        TIMESTAMP,
        PID,
        DONE,
        SINCE_RESTORE,
        CHECKPOINT_NAME,
        "config",
        "date",
        "experiment_id",
        "hostname",
        "node_ip",
        SHOULD_CHECKPOINT,
        "time_since_restore",
        "timesteps_since_restore",
        "trial_id",
    }
)
