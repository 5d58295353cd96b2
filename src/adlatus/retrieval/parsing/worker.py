"""The program of the child: loads one parser, gives up every right, then reads the file and writes its text.

The file is descriptor 0, the text goes to descriptor 1. If the file cannot be parsed, the reason stands there instead.
"""

import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import BinaryIO

from adlatus.retrieval.parsing.confine import confine
from adlatus.retrieval.parsing.order import Ending, Order
from adlatus.retrieval.parsing.sink import InvalidFileError, Sink, TooLargeError

Extract = Callable[[BinaryIO, Sink], None]


def main() -> None:
    order = Order.of(sys.argv[1:])
    extract: Extract = import_module(f"adlatus.retrieval.parsing.{order.module}").extract
    source, output = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    confine(order)
    ending, reason = parse(extract, source, Sink(output, order.text_bytes))
    if ending is not Ending.PARSED:
        os.ftruncate(1, 0)
        os.lseek(1, 0, os.SEEK_SET)
        os.write(1, reason[:500].encode(errors="replace"))
    os._exit(ending)  # nothing is left to do, and closing a broken file may take long


def parse(extract: Extract, source: BinaryIO, sink: Sink) -> tuple[Ending, str]:
    """Write the text of a file, and tell how that ended and why."""
    try:
        extract(source, sink)
        sink.close()
    except (TooLargeError, MemoryError) as error:
        return Ending.TOO_LARGE, type(error).__name__
    except InvalidFileError as error:
        return Ending.INVALID, str(error)
    except OSError as error:
        ending = Ending.NO_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT) else Ending.INVALID
        return ending, str(error)
    except Exception as error:  # noqa: BLE001 - a broken file makes a parser raise anything
        return Ending.INVALID, f"{type(error).__name__}: {error}"
    return (Ending.PARSED, "") if sink.has_text else (Ending.EMPTY, "no text")


if __name__ == "__main__":
    main()
