"""Models: one file each; `load_model` builds one by name and fills it from a checkpoint."""

from core.models.base import Factory, register
from core.models.loading import load_model, origin, remember_origin, require_code
from core.models.published import licence_of, preprocessing_of
from core.parts import MODELS, TORCHVISION, is_pretrained
from core.recipes import Recipe, recipe_for

__all__ = [
    "MODELS",
    "TORCHVISION",
    "Factory",
    "Recipe",
    "is_pretrained",
    "licence_of",
    "load_model",
    "origin",
    "preprocessing_of",
    "recipe_for",
    "register",
    "remember_origin",
    "require_code",
]
