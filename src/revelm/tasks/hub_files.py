"""Single files of data sets on the hub, of those whose loading is code of their own: ``datasets`` does not run it."""


def hub_file(repository: str, name: str) -> str:
    """The path of a file, fetched once. Raises ValueError where it cannot be had, with the remedy."""
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(repository, name, repo_type="dataset"))
    except Exception as error:  # a boundary: the network
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        remedy = f"connect to the hub, or give task.data, a copy of {name}"
        raise ValueError(f"task.data=None: {name} of {repository} could not be fetched ({said}); {remedy}") from error
