"""Where people look at their runs: decisions in W&B, MLflow, TensorBoard and Trackio."""
