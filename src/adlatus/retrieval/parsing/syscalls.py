"""A filter of system calls (seccomp): what parsing needs is allowed, all else answers "not permitted".

Chiefly it keeps a parser that was taken over from sending signals to processes of the same user, where we are not root
and cannot become somebody else.
"""

import ctypes
import os
from struct import pack

_PR_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4

# read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl pread64 mremap
# madvise sched_yield fcntl ftruncate sigaltstack gettid futex restart_syscall clock_gettime exit exit_group getrandom
_ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 25, 28, 24, 72, 77, 131, 186, 202, 219, 228, 60, 231, 318),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 29, 67, 216, 233, 124, 25, 46, 132, 178, 98, 128),
            *(113, 93, 94, 278),
        ),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def allow_only_harmless_calls(libc: ctypes.CDLL) -> bool:
    """Whether the filter is in force from now on: not on other processors, nor on kernels without seccomp."""
    known = _ARCHITECTURES.get(os.uname().machine)
    if known is None:
        return False
    architecture, calls = known
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUALS, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *((_EQUALS, len(calls) - index, 0, call) for index, call in enumerate(calls)),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = _Program(len(steps), b"".join(pack("<HBBI", *step) for step in steps))
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)
