"""Write the losses and rates of log.jsonl for TensorBoard (extra [tensorboard]).

fsf run RECIPE --tensorboard
tensorboard --logdir runs
"""

import shutil
from typing import Any, Self

from fsframework.core.errors import UserError
from fsframework.models.run import Run
from fsframework.recipe.schema import Stage

FOLDER = "tensorboard"  # in a run's folder, with one folder for each stage


def check_installed() -> None:
    """Raise UserError if TensorBoard is not installed."""
    _writer_class()


class TensorBoardLogger:
    """Logger of one stage, a context manager. It first writes the stage's entries in the log."""

    def __init__(self, run: Run, stage: Stage) -> None:
        folder = run.path / FOLDER / stage.name
        shutil.rmtree(folder, ignore_errors=True)  # may hold steps after the last checkpoint
        self._writer = _writer_class()(str(folder))
        for entry in run.read_log():
            if entry["stage"] == stage.name:
                self.add(entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, entry: dict[str, Any]) -> None:
        """Write the losses and rates of a log entry."""
        for name, value in entry["losses"].items():
            self._writer.add_scalar(f"loss/{name}", value, entry["step"])
        for name in ("images_per_s", "data_share"):
            self._writer.add_scalar(f"speed/{name}", entry[name], entry["step"])


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        advice = "try: pip install 'fsframework[tensorboard]'"
        raise UserError(f"--tensorboard: TensorBoard is not installed; {advice}") from None
    return SummaryWriter
