"""From the URI of a folder to the storage that it lies in."""

import re
from urllib.parse import quote

from pyarrow import fs

FILE = "file://"
NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")  # a per-cent sign that stands for itself
AS_IT_IS = "/%:@!$&'()*+,;="  # of what is no letter


def at_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """The filesystem and the path that a URI names; `ValueError` if it names none.

    Blanks, and in a `file://` URI other characters too, may be as they are, or escaped ("%20").
    """
    if uri.startswith(FILE):
        uri = FILE + quote(NO_ESCAPE.sub("%25", uri[len(FILE) :]), safe=AS_IT_IS)
    filesystem, path = fs.FileSystem.from_uri(uri.replace(" ", "%20"))
    return filesystem, str(path)
