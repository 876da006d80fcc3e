"""Recipes: the metric, its mode and a rule for the common jobs, put together from `rules`.

Metrics are named as the Hugging Face Trainer and TRL log them; `TuneCallback` reports the training
loss, "loss" to the Trainer, as "train_loss". A recipe is used in the same way everywhere::

    recipe = recipes.validation_loss(patience=3)
    RuleStopper(recipe.rule, **recipe.objective)  # tune.RunConfig(stop=…)
    EarlyStopping(recipe.rule, **recipe.objective)  # a plain loop
    RuleCallback(recipe.rule, **recipe.objective)  # a Trainer

They are where to begin: replay your own sweeps to see what suits them. What those for training
with rewards do on healthy runs and on broken ones: benchmarks/results/reward_alarms.md.
"""

from tune_stoppers.recipes.recipe import Recipe as Recipe
from tune_stoppers.recipes.rewards import dpo as dpo
from tune_stoppers.recipes.rewards import grpo as grpo
from tune_stoppers.recipes.rewards import rloo as rloo
from tune_stoppers.recipes.supervised import multi_task as multi_task
from tune_stoppers.recipes.supervised import sft as sft
from tune_stoppers.recipes.supervised import validation_accuracy as validation_accuracy
from tune_stoppers.recipes.supervised import validation_loss as validation_loss
