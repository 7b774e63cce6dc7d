"""Saved folders on the Hub: checked before they are pushed, and compared with what lies there afterwards."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, RepoFile
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open

from mmpt.configuration.errors import MmptConnectionError, MmptFileNotFoundError, MmptPermissionError, MmptValueError
from mmpt.hub.access_tokens import find_token
from mmpt.hub.model_card import name_the_source
from mmpt.hub.pushed_files import (
    ADAPTER,
    ADAPTER_CONFIG,
    CONFIGS,
    RUN,
    files_to_push,
    is_inside,
    left_behind,
    weight_files,
)
from mmpt.processing.store.format import ERRORS, INDEX, MANIFEST, sha256
from mmpt.processing.store.region_store import RegionStore

logger = logging.getLogger(__name__)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Push a saved model or processor, or a region store, and return the address of what was pushed.

    The files of a model, processor or run are known by name (`pushed_files`). What else lies in the folder is left
    behind, and a warning says so. All files go up in one commit, and are compared with the folder afterwards: without
    an error they are there. A region store becomes a dataset repository of Parquet files.

    Args:
        repo_id: `user/name`, or `name` alone for a repository of one's own; made if it is not there.
        private: for a new repository.
        token: the one of `hf auth login` by default.
        revision: a branch that is there; main by default.

    Raises:
        FileNotFoundError, ValueError: if the folder holds none of these, or is incomplete.
        PermissionError: if the Hub does not accept the token.
        ConnectionError: if it cannot be reached or answers with an error, or if what lies there is not the folder.
    """
    folder = Path(folder)
    with clear_hub_errors(folder, repo_id):
        if (folder / MANIFEST).is_file() and not (folder / "config.json").is_file():
            store = RegionStore.open(folder)
            own = [MANIFEST, INDEX, ERRORS, *(entry["file"] for entry in store.manifest["shards"])]
            _warn_of_rest(folder, own)
            return store.push_to_hub(repo_id, private=private, token=token, revision=revision)
        check_folder(folder)
        names = files_to_push(folder)
        check_no_token(folder, names, token)
        _warn_of_rest(folder, names)
        if not (folder / "README.md").is_file():
            logger.warning("%s has no README.md: the repository will have no model card", folder)
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        contents: dict[str, bytes | Path] = {name: folder / name for name in names}
        if "README.md" in contents:
            card = (folder / "README.md").read_text(encoding="utf-8", errors="surrogateescape")
            contents["README.md"] = name_the_source(card, repo_id).encode(errors="surrogateescape")
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, _for_upload(content)) for name, content in contents.items()],
            commit_message=f"Upload {folder.name}",
            revision=revision,
        )
        there = api.get_paths_info(repo_id, list(contents), revision=commit.oid)
        digests = {
            info.path: info.lfs.sha256 if info.lfs else info.blob_id for info in there if isinstance(info, RepoFile)
        }
        for name, content in contents.items():
            if digests.get(name) not in (_sha256(content), _git_blob(content)):
                raise MmptConnectionError(f"{name} in {repo_id} is not what {folder} holds; push again")
        return f"{api.endpoint}/{repo_id}/tree/{commit.oid}"


def check_folder(folder: Path) -> None:
    """Raise unless a folder holds a whole saved model, adapter or processor.

    Raises:
        FileNotFoundError: if it holds none of them, or a file of weights is missing.
        ValueError: if a file of weights is damaged, or lies outside the folder.
    """
    if (folder / "config.json").is_file():
        needed = ["config.json", *weight_files(folder)]
    elif (folder / ADAPTER_CONFIG).is_file():
        needed = [ADAPTER_CONFIG, ADAPTER]
    elif any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        return
    else:
        raise MmptFileNotFoundError(
            f"{folder} has no config.json, expected a folder of save_pretrained, mmpt pretrain or mmpt finetune, or a "
            "region store"
        )
    for name in needed:
        if not (folder / name).is_file():
            raise MmptFileNotFoundError(f"{folder} lacks the weights {name}; was saving it interrupted? Save it again")
        if not is_inside(folder, name):
            raise MmptValueError(
                f"{folder / name} is a link to {(folder / name).resolve()}, and links that leave the folder are never "
                f"pushed; push a copy: cp -rL {folder} COPY"
            )
        if name.endswith(".safetensors"):
            try:
                with safe_open(folder / name, framework="pt"):
                    pass
            except SafetensorError as error:
                raise MmptValueError(f"{folder / name} is damaged ({error}); save it again") from None


def check_no_token(folder: Path, names: list[str], token: str | None) -> None:
    """Raise if a file that is about to be pushed holds an access token: of the Hub, or in an address.

    Raises:
        ValueError: if one does.
    """
    for name in {*RUN, *CONFIGS} & set(names):
        found = find_token((folder / name).read_text(encoding="utf-8", errors="replace"), token)
        if found is not None:
            raise MmptValueError(f"{folder / name} holds {found}; take it out, and revoke it if anybody could read it")


def _warn_of_rest(folder: Path, pushed: list[str]) -> None:
    if rest := left_behind(folder, pushed):
        logger.warning("%s", rest)


@contextmanager
def clear_hub_errors(folder: Path, repo_id: str) -> Iterator[None]:
    """Turn what the Hub answers, or does not, into one error about this folder and repository."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise MmptPermissionError(f"{error}; log in with `hf auth login`, or set HF_TOKEN") from error
    except OfflineModeIsEnabled as error:
        raise MmptConnectionError(
            f"{repo_id!r} cannot be reached: HF_HUB_OFFLINE is set; unset it, or do not push"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise MmptPermissionError(
                f"the Hub does not accept the token for {repo_id!r}; log in with `hf auth login`, or set HF_TOKEN to a "
                "token that may write"
            ) from error
        if status == 403:
            raise MmptPermissionError(f"this token may not write to {repo_id!r}: {error.server_message}") from error
        raise MmptConnectionError(f"the Hub refused {folder} as {repo_id!r}: {error}") from error
    except HTTPError as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise MmptConnectionError(
            f"the connection broke while {folder} was pushed to {repo_id!r} ({why}); it does not count as pushed. Push "
            "again: large files that are there already are not sent twice"
        ) from error


def _for_upload(content: bytes | Path) -> bytes | str:
    return content if isinstance(content, bytes) else str(content)


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return sha256(content)


def _git_blob(content: bytes | Path) -> str:
    """Return the name that git gives a file, which the Hub tells of files that are not large."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if size > 50_000_000:  # only large files are that size
        return ""
    raw = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(b"blob %d\0" % size + raw).hexdigest()
