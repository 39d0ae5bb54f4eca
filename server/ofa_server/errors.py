"""The one error of the `ofa` command's own; the library's are in `ofa.errors`."""

from ofa.errors import OFAError


class ServerError(OFAError):
    """Triton cannot be started or has failed, or a repository is unfit; one sentence says why."""
