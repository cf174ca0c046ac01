"""Models: one file each; `load_model` builds one by name and fills it from a checkpoint."""

from core.models.base import MODELS, Factory, Recipe, recipe_for, register
from core.models.loading import load_model

__all__ = ["MODELS", "Factory", "Recipe", "load_model", "recipe_for", "register"]
