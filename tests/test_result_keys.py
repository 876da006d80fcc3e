"""The constants that spare a reader the import of Ray are Ray's."""

from ray.tune import result

from tune_stoppers import result_keys


def test_the_keys_are_those_of_ray():
    """Each that Ray has a name for has Ray's value."""
    shared = ("TRAINING_ITERATION", "TIME_TOTAL_S", "TIME_THIS_ITER_S", "TIMESTAMP", "PID", "DONE")
    shared += ("SHOULD_CHECKPOINT",)
    for name in shared:
        assert getattr(result_keys, name) == getattr(result, name)
    clocks = (
        result.TRAINING_ITERATION,
        result.TIME_TOTAL_S,
        result.TIMESTEPS_TOTAL,
        result.EPISODES_TOTAL,
    )
    assert clocks == result_keys.CLOCKS


def test_what_ray_adds_by_itself_is_known():
    """A metric of the user's is none of these, and every one of these is Ray's."""
    added = {*result.AUTO_RESULT_KEYS, *result.DEBUG_METRICS, result.DONE, result.SHOULD_CHECKPOINT}
    assert added == result_keys.RAYS_OWN
