"""A filter of system calls (seccomp): what parsing needs is allowed, all else answers "not permitted".

Chiefly it keeps a parser that was taken over from sending signals to processes of the same user, where we are not root
and cannot become somebody else.
"""

import os

from adlatus._sandbox import filter as seccomp

# read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl pread64 mremap
# madvise sched_yield fcntl ftruncate sigaltstack gettid futex restart_syscall clock_gettime exit exit_group getrandom
_CALLS = {
    "x86_64": (
        *(0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 25, 28, 24, 72, 77, 131, 186, 202, 219, 228, 60, 231, 318),
    ),
    "aarch64": (
        *(63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 29, 67, 216, 233, 124, 25, 46, 132, 178, 98, 128),
        *(113, 93, 94, 278),
    ),
}


def allow_only_harmless_calls() -> bool:
    """Whether the filter is in force from now on: not on other processors, nor on kernels without seccomp."""
    machine = os.uname().machine
    calls = _CALLS.get(machine)
    if calls is None:
        return False
    return seccomp.install(
        [
            *seccomp.of_this_processor(seccomp.ARCHITECTURES[machine]),
            *((seccomp.EQUALS, len(calls) - index, 0, call) for index, call in enumerate(calls)),
            (seccomp.RETURN, 0, 0, seccomp.REFUSE),
            (seccomp.RETURN, 0, 0, seccomp.ALLOW),
        ]
    )
