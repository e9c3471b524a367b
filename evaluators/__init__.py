"""What one candidate is worth."""

from evaluators.candidate import Candidate
from evaluators.checkpoint import CheckpointFolder, Checkpoints
from evaluators.criteria import CRITERIA, Criterion, NotApplicable, ScoringContext
from evaluators.evaluation import METHODS, Evaluation, Evaluator, Method, Outcome
from evaluators.flops import count_macs
from evaluators.ladder import Ladder
from evaluators.options import OptionError
from evaluators.precision import Precision
from evaluators.prepare import Prepared, check_criteria, prepare, train_dense
from evaluators.recalibrate import recalibrate
from evaluators.scoring import evaluate
from evaluators.scratch import fresh, scratch_b_epochs
from evaluators.shards import Shards
from evaluators.task import Recipe, Task, TensorLoader
from evaluators.tasks import TaskOptions, load_task
from evaluators.train import train

__all__ = [
    "CRITERIA",
    "METHODS",
    "Candidate",
    "CheckpointFolder",
    "Checkpoints",
    "Criterion",
    "Evaluation",
    "Evaluator",
    "Ladder",
    "Method",
    "NotApplicable",
    "OptionError",
    "Outcome",
    "Precision",
    "Prepared",
    "Recipe",
    "ScoringContext",
    "Shards",
    "Task",
    "TaskOptions",
    "TensorLoader",
    "check_criteria",
    "count_macs",
    "evaluate",
    "fresh",
    "load_task",
    "prepare",
    "recalibrate",
    "scratch_b_epochs",
    "train",
    "train_dense",
]
