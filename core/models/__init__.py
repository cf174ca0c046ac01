"""Models: one file each; `load_model` builds one by name and fills it from a checkpoint."""

from core.models.base import MODELS, Factory, Recipe, recipe_for, register
from core.models.loading import load_model, origin, remember_origin
from core.models.vision import TORCHVISION, is_pretrained

__all__ = [
    "MODELS",
    "TORCHVISION",
    "Factory",
    "Recipe",
    "is_pretrained",
    "load_model",
    "origin",
    "recipe_for",
    "register",
    "remember_origin",
]
