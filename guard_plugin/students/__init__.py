"""Students: networks that are trained on distilled sets, by the recipes of the hosts."""

from guard_plugin.students.eight_bit_images import EightBitImages, ViewDrawing, draw_view
from guard_plugin.students.recipes import RECIPES, Recipe, recipe_named, train_student
from guard_plugin.students.relabelling import RelabelRecipe
from guard_plugin.students.soft_labels import LabelSource, StoredLabels, TeacherLabels, label_source
from guard_plugin.students.training import TrainingRecipe

__all__ = [
    "RECIPES",
    "EightBitImages",
    "LabelSource",
    "Recipe",
    "RelabelRecipe",
    "StoredLabels",
    "TeacherLabels",
    "TrainingRecipe",
    "ViewDrawing",
    "draw_view",
    "label_source",
    "recipe_named",
    "train_student",
]
