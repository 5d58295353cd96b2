"""Image files of messages, as the model can look at them."""

from collections.abc import Iterable, Mapping

from adlatus.backends.images import MAX_BYTES, MAX_BYTES_TOGETHER, ImageError, data_url
from adlatus.errors import FileNotFound
from adlatus.resources import Resources
from adlatus.store import files
from adlatus.wire.files import FilePurpose

SHOWN = (FilePurpose.VISION, FilePurpose.ASSISTANTS_OUTPUT)


async def as_data_urls(resources: Resources, project_id: str, file_ids: Iterable[str]) -> Mapping[str, str]:
    """A `data:` URL for each image file that is there, and there to be looked at; the others are left out.

    Raises `ImageError` where a file is too large, or no image.
    """
    urls: dict[str, str] = {}
    left_bytes = MAX_BYTES_TOGETHER
    for file_id in dict.fromkeys(file_ids):
        try:
            row = await files.get(resources.database, project_id, file_id)
            if row["purpose"] not in SHOWN:
                continue
            if row["bytes"] > min(MAX_BYTES, left_bytes):
                raise ImageError(
                    f"The image file '{file_id}' has {row['bytes']} bytes. An image may have {MAX_BYTES // 2**20} MiB, "
                    f"and all that the model is shown {MAX_BYTES_TOGETHER // 2**20} MiB together."
                )
            pieces = await resources.blobs.read(files.key_of(file_id), 0, row["bytes"])
        except (FileNotFound, FileNotFoundError):  # deleted since
            continue
        content = b"".join([piece async for piece in pieces])
        left_bytes -= len(content)
        url = data_url(content)
        if url is None:
            raise ImageError(f"The file '{file_id}' is no PNG, JPEG, GIF or WebP image.")
        urls[file_id] = url
    return urls
