"""Single files of data sets on the hub: of those that ``datasets`` cannot load, or that are too large for it.

They are named as everywhere in the hub's own libraries, ``hf://datasets/owner/name@revision/folder/file.json``, without
``@revision`` for the newest.
"""

import re

_URL = re.compile(r"hf://datasets/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)")
_SCHEME = "hf://"


def local_path(path: str) -> str:
    """Where a file of the hub is on this machine, fetched once; any other path as it is.

    Raises ValueError as `hub_file` does, and for an address of another form.
    """
    if not path.startswith(_SCHEME):
        return path
    found = _URL.fullmatch(path)
    if found is None:
        raise ValueError(f"task.data={path!r}: expected hf://datasets/owner/name/file or .../name@revision/file")
    repository = f"{found['owner']}/{found['name']}"
    return hub_file(repository, found["file"], revision=found["revision"], given=path)


def hub_file(repository: str, name: str, *, revision: str | None = None, given: str | None = None) -> str:
    """The path of a file, fetched once. ``given``: what ``task.data`` says.

    Raises ValueError where it cannot be had, with the remedy.
    """
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(repository, name, repo_type="dataset", revision=revision))
    except Exception as error:  # a boundary: the network
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        field = "task.data, " if given is None else ""
        remedy = f"connect to the hub, or give {field}a copy of {name}"
        raise ValueError(
            f"task.data={given!r}: {name} of {repository} could not be fetched ({said}); {remedy}"
        ) from error
