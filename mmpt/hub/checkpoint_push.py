"""A Trainer that pushes the files that belong to a model and, where asked, to a checkpoint; nothing else."""

import glob
import logging
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import PushInProgress

from mmpt.configuration.self_contained import open_to_umask
from mmpt.hub.pushed_files import WEIGHTS, WEIGHTS_INDEX, files_to_push, left_behind

logger = logging.getLogger(__name__)


class PushingTrainer(Trainer):
    """transformers' Trainer, whose pushes send known files only, and whose folders hold no access token.

    A checkpoint is pushed when it is complete. `hub_strategy="checkpoint"` and `"all_checkpoints"` also push what
    training resumes from.
    """

    push_in_progress: PushInProgress | None = None
    _checkpoint_to_push: Path | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_PushCallback(self))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository as transformers does, and find out whether the token may write to it.

        To make a repository that is there already is no error, whoever asks.
        """
        super().init_hf_repo(token=token, private=private)
        if not self.is_world_process_zero():
            return
        try:
            HfApi().auth_check(str(self.hub_model_id), token=token or self.args.hub_token, write=True)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:  # which is the answer of a server that has no such check
                raise

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save and push as transformers does, but only the files that belong to the model and its run.

        Returns:
            The commit, or a future of it if not `blocking`.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        tags = kwargs.pop("tags", None) or []
        tags = [tags] if isinstance(tags, str) else list(tags)
        tags += [tag for tag in getattr(self.model, "model_tags", None) or [] if tag not in tags]
        name = kwargs.pop("model_name", None) or str(self.hub_model_id).rpartition("/")[2]
        self.create_model_card(model_name=name, tags=tags, **kwargs)
        self._finish_current_push()
        job = self._upload(Path(str(self.args.output_dir)), commit_message, token=token, revision=revision)
        return job.result() if blocking else job

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save without the access token, which transformers pickles with the arguments."""
        token, self.args.hub_token = self.args.hub_token, None
        try:
            super()._save(output_dir, state_dict=state_dict)
        finally:
            self.args.hub_token = token
        open_to_umask(Path(output_dir or str(self.args.output_dir)))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Note the checkpoint; it is pushed when it is complete."""
        self._checkpoint_to_push = Path(checkpoint_folder)

    def _push_checkpoint(self) -> None:
        """Push the checkpoint that was just saved, in the background, as `hub_strategy` says."""
        checkpoint, self._checkpoint_to_push = self._checkpoint_to_push, None
        strategy, running = self.args.hub_strategy, self.push_in_progress
        if checkpoint is None or not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        if running is not None and not running.is_done() and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        output_dir, names = Path(str(self.args.output_dir)), files_to_push(checkpoint)
        for stale in {WEIGHTS, WEIGHTS_INDEX} - set(names):
            (output_dir / stale).unlink(missing_ok=True)
        for name in names:  # the checkpoint may be deleted while it is sent
            shutil.copy(checkpoint / name, output_dir / name)
        steps = self.args.save_strategy == SaveStrategy.STEPS
        where = f"step {self.state.global_step}" if steps else f"epoch {int(self.state.epoch or 0)}"
        title = f"Training in progress, {where}"
        jobs = [self._upload(output_dir, title)]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            place = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else checkpoint.name
            jobs.append(self._upload(checkpoint, f"{title}, checkpoint", place, resumable=True))
        if running is None or running.is_done():
            self.push_in_progress = PushInProgress(jobs)  # type: ignore[arg-type]
        else:
            running.jobs.extend(jobs)  # type: ignore[union-attr]

    def _finish_current_push(self) -> None:
        """Wait for pushes as transformers does, and say which of them failed: it does not."""
        super()._finish_current_push()
        jobs: Any = [] if self.push_in_progress is None else self.push_in_progress.jobs
        for job in jobs:
            if (error := job.exception()) is not None:
                logger.warning("a checkpoint was not pushed: %s", error)

    def _upload(
        self,
        folder: Path,
        title: str | None,
        place: str | None = None,
        *,
        resumable: bool = False,
        token: str | None = None,
        revision: str | None = None,
    ) -> Any:
        """Return the future of a commit with the folder's files that belong there."""
        names = files_to_push(folder, resumable=resumable)
        if rest := left_behind(folder, names):
            logger.info("%s: %s", folder, rest)
        return HfApi().upload_folder(
            repo_id=str(self.hub_model_id),
            folder_path=folder,
            path_in_repo=place,
            commit_message=title,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            allow_patterns=[glob.escape(name) for name in names],
            run_as_future=True,
        )


class _PushCallback(TrainerCallback):
    """Push a checkpoint once it is saved and marked as complete."""

    def __init__(self, trainer: PushingTrainer) -> None:
        self.trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._push_checkpoint()
