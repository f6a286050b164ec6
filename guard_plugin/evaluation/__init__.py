"""Robustness in pixel space: students, attacks, records, statistics."""

from guard_plugin.attacks import ATTACKS, PRESETS, Attack, builtin_registry, parse_attacks, parse_eps
from guard_plugin.datasets import DATASETS, ImageSet, load_images
from guard_plugin.evaluation.distilled_benchmark import benchmark_distilled
from guard_plugin.evaluation.model_benchmark import BenchmarkResult, benchmark
from guard_plugin.evaluation.options import BenchmarkOptions
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.tables import results_table
from guard_plugin.networks.architectures import ARCHITECTURES, build_network
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.students.recipes import RECIPES, Recipe, train_student
from guard_plugin.students.relabelling import RelabelRecipe
from guard_plugin.students.training import TrainingRecipe

__all__ = [
    "ARCHITECTURES",
    "ATTACKS",
    "DATASETS",
    "PRESETS",
    "RECIPES",
    "Attack",
    "BenchmarkOptions",
    "BenchmarkResult",
    "FinishedBenchmark",
    "ImageSet",
    "PixelModel",
    "Recipe",
    "RelabelRecipe",
    "TrainingRecipe",
    "benchmark",
    "benchmark_distilled",
    "build_network",
    "builtin_registry",
    "load_images",
    "parse_attacks",
    "parse_eps",
    "results_table",
    "train_student",
]
