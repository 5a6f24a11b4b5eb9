"""How a file that people are given is written: it appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import DeviceError, UsageError


def expanded(text: str, variable: str) -> Path:
    """A path from the environment, with ``~`` as the home folder: no shell need have read it.

    Raises:
        UsageError: it begins with the home of somebody whom this system does not know.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{variable} is '{text}', and this system knows no such home folder.", remedy="Write the whole path."
        ) from error


@contextmanager
def whole(path: Path, what: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when all went well, and leaves nothing behind when not.

    Folders that are not there are made.

    Args:
        path: where the file will be.
        what: it is, for messages: ``"table"``.

    Raises:
        UsageError: ``path`` is a folder, or a part of it is a file.
        DeviceError: it cannot be written: no permission, or a full disk.
    """
    part = None
    try:
        if path.is_dir():
            raise UsageError(f"The {what} cannot be written: '{path}' is a folder.", remedy="Name a file.")
        if path.exists() and not path.is_file():  # root could put a file in the place of /dev/null
            raise UsageError(f"The {what} cannot be written: '{path}' is a device or a pipe.", remedy="Name a file.")
        place = path.resolve() if path.is_symlink() else path  # what a link names is written, and the link stays
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{uuid.uuid4().hex}.part")
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"The {what} cannot be written to '{path}': a part of that path is a file.",
            remedy="Name a file in a folder.",
        ) from error
    except OSError as error:
        raise DeviceError(
            f"The {what} cannot be written to '{path}': {error.strerror or error}.",
            remedy="Check the free space and your permission there, or write elsewhere with -o.",
        ) from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):  # it is gone when all went well
                part.unlink()
