"""The installed robustbench, made to work in memory: its files, and everything else on the disk, stay as they are."""

from guard_plugin.robustbench_bridge.delegate import (
    DATASETS,
    THREAT_MODELS,
    Accuracies,
    RobustBenchRun,
    run_robustbench,
)
from guard_plugin.robustbench_bridge.model_info import write_model_info
from guard_plugin.robustbench_bridge.repairs import Repair, RepairedRobustBench, repaired_robustbench

__all__ = [
    "DATASETS",
    "THREAT_MODELS",
    "Accuracies",
    "Repair",
    "RepairedRobustBench",
    "RobustBenchRun",
    "repaired_robustbench",
    "run_robustbench",
    "write_model_info",
]
