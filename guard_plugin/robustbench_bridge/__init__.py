"""The installed robustbench, made to work in memory: nothing on the disk is changed."""

from guard_plugin.robustbench_bridge.model_info import THREAT_MODELS, write_model_info
from guard_plugin.robustbench_bridge.repairs import Repair, repaired_robustbench
from guard_plugin.robustbench_bridge.run import DATASETS, RobustBenchRun, run_robustbench

__all__ = [
    "DATASETS",
    "THREAT_MODELS",
    "Repair",
    "RobustBenchRun",
    "repaired_robustbench",
    "run_robustbench",
    "write_model_info",
]
