"""Filters of system calls (seccomp) as plain data, and the few lines that put one in force. Standard library only.

`refuse_dangerous_calls` is what model-written code runs under, whatever the engine's own filter does: Docker's default
profile lets VSOCK sockets through, and io_uring before version 25; bubblewrap has none at all.
"""

import ctypes
import errno
import os
from collections.abc import Sequence
from struct import pack

Step = tuple[int, int, int, int]
"""One instruction: code, how many to skip if true, how many if false, operand."""

LOAD, EQUALS, GREATER, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
UNKNOWN, NO_FAMILY = 0x00050000 | errno.ENOSYS, 0x00050000 | errno.EAFNOSUPPORT
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_PR_SET_SECCOMP, _FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_NEWEST = 462
"""The newest call that this list was made for (mseal, Linux 6.10). Later ones, and those of x32, do not exist here."""
_CLONE_ANY_NAMESPACE = 0x7E020000
_FAMILIES = (1, 2, 10)  # UNIX, INET, INET6: neither NETLINK, PACKET, ALG nor VSOCK, which no namespace holds

# For both processors: the number of each call on x86-64 and on ARM64; None where there is no such call.
_DANGEROUS: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "acct": (163, 89),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "mbind": (237, 235),
    "get_mempolicy": (239, 236),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "memfd_secret": (447, 447),
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
}
_CLONE, _CLONE3, _SOCKET, _SOCKETPAIR = (56, 220), (435, 435), (41, 198), (53, 199)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(steps: Sequence[Step]) -> bool:
    """Put a filter in force for this process and its children, for good. False on kernels without seccomp."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(steps), b"".join(pack("<HBBI", *step) for step in steps))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)


def of_this_processor(architecture: int) -> list[Step]:
    """The beginning of every filter: calls of another processor's kind, which have other numbers, end the process."""
    return [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUALS, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER_AT)]


def refuse_dangerous_calls() -> bool:
    """Whether model-written code can be held from now on: not on processors that this list does not know."""
    machine = os.uname().machine
    return machine in ARCHITECTURES and install(dangerous_calls(machine))


def dangerous_calls(machine: str) -> list[Step]:
    """The filter of model-written code: no look into other processes, no namespaces, no mounts, no odd sockets."""
    at = list(ARCHITECTURES).index(machine)
    numbers = [both[at] for both in _DANGEROUS.values()]
    return [
        *of_this_processor(ARCHITECTURES[machine]),
        *_where(GREATER, _NEWEST, UNKNOWN),
        *_where(EQUALS, _CLONE3[at], UNKNOWN),  # its flags cannot be seen; libraries then use clone
        *(step for number in numbers if number is not None for step in _where(EQUALS, number, REFUSE)),
        (EQUALS, 0, 4, _CLONE[at]),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        (ANY_BIT, 0, 1, _CLONE_ANY_NAMESPACE),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
        (EQUALS, 1, 0, _SOCKET[at]),
        (EQUALS, 0, 2 + len(_FAMILIES), _SOCKETPAIR[at]),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        *((EQUALS, len(_FAMILIES) - index, 0, family) for index, family in enumerate(_FAMILIES)),
        (RETURN, 0, 0, NO_FAMILY),
        (RETURN, 0, 0, ALLOW),
    ]


def _where(comparison: int, operand: int, answer: int) -> list[Step]:
    return [(comparison, 0, 1, operand), (RETURN, 0, 0, answer)]
