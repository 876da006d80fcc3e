"""Whether a path found in an experiment stays in it, symbolic links followed."""

import os
import posixpath

from pyarrow import fs


def is_inside(filesystem: fs.FileSystem, path: str, folder: str) -> bool:
    """Whether `path` lies in `folder`. Storage other than the local one has no symbolic links."""
    if "\0" in path:
        return False  # no name of a file
    local = isinstance(filesystem, fs.LocalFileSystem)
    whole = os.path.realpath if local else posixpath.normpath
    return whole(path).startswith(whole(folder).rstrip("/") + "/")
