"""The attack table: code that tries to get out, to look around, to use up the machine or to fool the supervisor.

Each attack says what has to be seen: a pattern of everything that came back, with the status at the end. No attack may
print BREACH. Where the engines differ, `otherwise` has the pattern of the one, and `difference` says why.
"""

from dataclasses import dataclass, field
from textwrap import dedent

CALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    return "BREACH" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""
FDS = "import os; fds = [int(n) for n in os.listdir('/proc/self/fd') if int(n) > 2]\n"


@dataclass(frozen=True)
class Attack:
    """`timeout_s` is what the code is given. `survives` says that variables of the session are still there after it."""

    name: str
    code: str
    seen: str
    timeout_s: float = 10
    survives: bool = False
    otherwise: dict[str, str] = field(default_factory=dict)
    difference: str = ""


def _attack(name: str, code: str, seen: str, **rest: object) -> Attack:
    return Attack(name, dedent(code), seen, **rest)  # type: ignore[arg-type]


_SYSCALLS = """
import platform
assert platform.machine() == "x86_64", "the numbers are of x86-64"
"""

ATTACKS = [
    # --- Using up the machine
    _attack("fork bomb", "import os\nwhile True: os.fork()", r"\[(killed|died|interrupted)\]", timeout_s=2),
    _attack(
        "fork bomb that does not stop at refusals",
        """
        import os
        while True:
            try: os.fork()
            except BaseException: pass
        """,
        r"\[killed\]",
        timeout_s=2,
    ),
    _attack(
        "fork bomb of a shell",
        "import subprocess; subprocess.run(['sh', '-c', 'b() { b | b & }; b; sleep 60'])",
        r"\[(ok|error|killed|interrupted|died)\]",
        timeout_s=2,
    ),
    _attack(
        "thread bomb",
        """
        import threading, time
        made = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
                made += 1
        except RuntimeError:
            print("stopped", made < 128)
        """,
        r"stopped True",
        survives=True,
    ),
    _attack("allocate 100 GiB at once", "bytearray(100 * 2**30)", r"MemoryError|\[died\]"),
    _attack(
        "allocate without end",
        "kept = []\nwhile True: kept.append(bytearray(50_000_000))",
        r"\[died\]",
        timeout_s=60,
        otherwise={"no cgroup": r"MemoryError|\[died\]"},
    ),
    _attack(
        "allocate without end in many processes",
        """
        import os, time
        for _ in range(20):
            if os.fork() == 0:
                kept = []
                while True: kept.append(bytearray(20_000_000))
        time.sleep(3)
        """,
        r"\[(ok|died|killed|interrupted)\]",
        timeout_s=8,
    ),
    _attack(
        "fill /mnt/data",
        "with open('big', 'wb') as file:\n    while True: file.write(bytes(10_000_000))",
        r"OSError.*(No space left|File too large)",
        timeout_s=60,
        survives=True,
    ),
    _attack(
        "fill /mnt/data, then allocate",
        """
        try:
            with open("big", "wb") as file:
                while True: file.write(bytes(10_000_000))
        except OSError:
            pass
        kept = []
        while True: kept.append(bytearray(50_000_000))
        """,
        r"\[died\]",
        timeout_s=60,
        otherwise={"no cgroup": r"MemoryError|\[died\]"},
    ),
    _attack(
        "fill /tmp, /dev/shm and the home",
        """
        for folder in ("/tmp", "/dev/shm", "/home/sandbox"):
            size = 0
            try:
                with open(folder + "/big", "wb", buffering=0) as file:
                    while size < 10**9: size += file.write(bytes(1_000_000))
                print("BREACH", folder)
            except OSError as error:
                print(folder, size <= 70_000_000)
        """,
        r"/tmp True\n/dev/shm True\n/home/sandbox True",
        survives=True,
    ),
    _attack(
        "100,000 files",
        """
        import errno
        made = 0
        try:
            for made in range(100_000): open(f"f{made}", "w").close()
            print("all made")
        except OSError as error:
            print(errno.errorcode[error.errno], made < 21_000)
        """,
        r"ENOSPC True",
        timeout_s=60,
        survives=True,
        otherwise={"bubblewrap": r"all made"},
        difference="bubblewrap's tmpfs takes no limit of inodes; their memory counts for the control group",
    ),
    _attack(
        "a sparse file of a terabyte",
        "with open('sparse', 'wb') as file: file.truncate(2**40)",
        r"OSError.*File too large",
        survives=True,
    ),
    _attack(
        "folders without end",
        """
        import os
        try:
            for _ in range(5000): os.mkdir("d"); os.chdir("d")
        except OSError as error: pass
        open("deep", "w").close()
        os.chdir("/mnt/data")
        print("deep")
        """,
        r"deep\n\[ok\]",
        survives=True,
    ),
    _attack(
        "raise its own limits",
        """
        import resource
        for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE"):
            kind = getattr(resource, name)
            try:
                resource.setrlimit(kind, (2**40, 2**40))
                print("BREACH", name)
            except (ValueError, OSError): print("refused")
        """,
        r"(refused\n){3}",
        survives=True,
    ),
    _attack("priority above others", "import os\nos.nice(-10)", r"PermissionError", survives=True),
    _attack(
        "descriptors without end",
        "import os\nkept = []\nwhile True: kept.append(os.open('/dev/null', 0))",
        r"Too many open files|\[died\]",
    ),
    # --- Not coming to an end
    _attack("an endless loop", "while True: pass", r"interrupted\.\n\[interrupted\]", timeout_s=1, survives=True),
    _attack("sleep", "import time; time.sleep(600)", r"\[interrupted\]", timeout_s=1, survives=True),
    _attack("sleep of a child", "import os; os.system('sleep 600')", r"\[interrupted\]", timeout_s=1, survives=True),
    _attack(
        "deaf to interrupts",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        r"restarted.*\n\[killed\]",
        timeout_s=1,
    ),
    _attack(
        "catches every interrupt",
        """
        import time
        while True:
            try: time.sleep(1)
            except BaseException: pass
        """,
        r"\[killed\]",
        timeout_s=1,
    ),
    _attack(
        "blocks all signals",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        r"\[killed\]",
        timeout_s=1,
    ),
    _attack("a call that does not return", "sum(range(10**13))", r"restarted.*\n\[killed\]", timeout_s=1),
    _attack(
        "stops itself",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        r"\[(killed|interrupted|ok)\]",
        timeout_s=1,
    ),
    _attack("waits for input", "input('name?')", r"EOFError", survives=True),
    _attack(
        "a daemon that survives its parents",
        """
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                while True: time.sleep(0.01); open("/tmp/beat", "w").write(str(time.time()))
            os._exit(0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True: pass
        """,
        r"\[killed\]",
        timeout_s=1,
    ),
    # --- Flooding the host
    _attack(
        "200 MB of lines",
        "for _ in range(200): print('x' * 999_999)",
        r"19\d{7} more characters of output were left out",
        timeout_s=60,
        survives=True,
    ),
    _attack(
        "output without end",
        "while True: print('y' * 10_000)",
        r"left out.*\n(.*\n)*\[interrupted\]",
        timeout_s=2,
        survives=True,
    ),
    _attack(
        "bytes that are no text, without a newline",
        "import os\nfor _ in range(300): os.write(1, bytes(range(128, 256)) * 512)",
        r"left out",
        timeout_s=20,
        survives=True,
    ),
    _attack("a value of 200 MB", "'x' * 200_000_000", r"characters left out", timeout_s=30, survives=True),
    _attack("a message of 50 MB", "raise ValueError('x' * 50_000_000)", r"ValueError", timeout_s=30, survives=True),
    _attack(
        "50 large images",
        """
        import os
        from IPython.display import Image, display
        for _ in range(50): display(Image(data=b"\\x89PNG\\r\\n\\x1a\\n" + os.urandom(2_000_000), format="png"))
        """,
        r"Only 20 images are shown",
        timeout_s=60,
        survives=True,
    ),
    _attack(
        "an image of 40 MB",
        """
        from IPython.display import Image, display
        display(Image(data=b"\\x89PNG\\r\\n\\x1a\\n" + bytes(40_000_000), format="png"))
        """,
        r"left out",
        timeout_s=30,
        survives=True,
    ),
    _attack(
        "an image that is none",
        """
        from IPython.display import Image, display
        display(Image(data=b"<script>alert(1)</script>", format="png"))
        """,
        r"^\[ok\]",
        survives=True,
    ),
    _attack(
        "values that cannot be shown",
        """
        class Bad(Exception):
            def __str__(self): raise RuntimeError
            __repr__ = __str__
        raise Bad()
        """,
        r"Bad",
        survives=True,
    ),
    _attack("control characters and lone surrogates", "print('\\0\\x1b[2J\\ud800')", r"\[ok\]", survives=True),
    # --- Fooling the supervisor
    _attack("exits", "import os; os._exit(3)", r"restarted.*\n\[died\]"),
    _attack("crashes", "import ctypes; ctypes.string_at(0)", r"restarted.*\n\[died\]"),
    _attack("closes all descriptors", "import os; os.closerange(0, 1024)", r"\[died\]"),
    _attack(
        "closes all descriptors and goes on",
        "import os; os.closerange(0, 1024)\nwhile True: pass",
        r"\[(died|killed)\]",
        timeout_s=2,
    ),
    _attack(
        "forges an end",
        FDS
        + "import time\n"
        + "for fd in fds:\n"
        + '    try: os.write(fd, b\'{"event":"end","id":"no such","ok":true}\\n\')\n'
        + "    except OSError: pass\n"
        + "print('after')",
        r"after\n\[ok\]",
        survives=True,
    ),
    _attack(
        "writes junk to all descriptors",
        FDS + "for fd in fds:\n    try: os.write(fd, b'\\xff{]junk\\n')\n    except OSError: pass\n",
        r"\[died\]",
    ),
    _attack(
        "writes a line without end to all descriptors",
        FDS
        + "for _ in range(500):\n"
        + "    for fd in fds:\n"
        + "        try: os.write(fd, b'x' * 65536)\n"
        + "        except OSError: pass\n",
        r"\[(died|killed)\]",
        timeout_s=10,
    ),
    _attack(
        "forges nested JSON",
        FDS + "for fd in fds:\n    try: os.write(fd, b'[' * 60000 + b'\\n')\n    except OSError: pass\n",
        r"\[died\]",
    ),
    _attack(
        "a forked child runs off the end",
        "import os\nchild = os.fork()\nprint('one' if child else 'other', flush=True)\nif child: os.waitpid(child, 0)",
        r"(one\nother|other\none)\n\[ok\]",
        survives=True,
    ),
    _attack(
        "a forked child displays and raises",
        "import os\nif os.fork() == 0: raise SystemExit(5)\nos.wait(); print('parent')",
        r"parent\n\[ok\]",
        survives=True,
    ),
    _attack(
        "signals to process 1",
        """
        import os, signal
        for number in range(1, 65):
            if number not in (32, 33): os.kill(1, number)
        print("sent")
        """,
        r"sent\n\[ok\]",
        survives=True,
    ),
    _attack(
        "kills everybody else",
        "import os, signal\ntry: os.kill(-1, 9)\nexcept OSError: pass\nprint('alone')",
        r"alone\n\[ok\]",
        survives=True,
    ),
    _attack(
        "kills everybody else, then itself",
        "import os, signal\nos.kill(-1, 9)\nos.kill(os.getpid(), 9)",
        r"\[died\]",
    ),
    _attack(
        "breaks what the worker uses",
        """
        import builtins, json, os, sys
        json.dumps = None
        os.write = lambda *_: 1 / 0
        sys.stdout.close()
        """,
        r"\[(ok|died|error|killed)\]",
        timeout_s=3,
    ),
    # --- Looking around
    _attack(
        "looks into process 1",
        """
        import os
        for path in ("mem", "environ", "maps", "fd/0", "cwd/x", "root/x"):
            try: open("/proc/1/" + path, "rb").read(1); print("BREACH", path)
            except OSError as error: print(type(error).__name__)
        """,
        r"(PermissionError\n){5}",
        survives=True,
    ),
    _attack(
        "traces and reads other processes",
        CALL + _SYSCALLS + "print(call(101, 16, 1, 0, 0), call(310, 1, 0, 0, 0, 0, 0), call(311, 1, 0, 0, 0, 0, 0))",
        r"EPERM EPERM EPERM",
        survives=True,
    ),
    _attack(
        "takes descriptors of process 1",
        CALL + _SYSCALLS + "fd = libc.syscall(434, 1, 0)\nprint(fd >= 0, call(438, fd, 0, 0))",
        r"EPERM",
        survives=True,
    ),
    _attack(
        "sees processes of the machine",
        "from glob import glob; print({open(path).read().split('\\0')[0] for path in glob('/proc/[0-9]*/cmdline')})",
        r"^\{'/opt/py/bin/python'\}\n",
        survives=True,
    ),
    _attack(
        "reads what is not its own",
        """
        import os
        for path in ("/etc/shadow", "/root", "/var/lib/adlatus", "/home/root", "/var/run/docker.sock",
                     "/run/docker.sock", "/proc/kcore", "/dev/kmsg", "/dev/mem", "/dev/vda", "/dev/sda",
                     "/sys/firmware/dmi"):
            try:
                if os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1): print("BREACH", path)
            except OSError: pass
        print("looked")
        """,
        r"looked",
        survives=True,
    ),
    _attack(
        "secrets in the environment",
        "import os, re; print([name for name in os.environ if re.search('KEY|TOKEN|ADLATUS|DOCKER|PASS', name)])",
        r"^\[\]\n",
        survives=True,
    ),
    _attack(
        "sockets of the machine",
        """
        import os
        found = [os.path.join(top, name) for top, _, names in os.walk("/") if not top.startswith("/proc")
                 for name in names if os.path.exists(os.path.join(top, name))
                 and (os.stat(os.path.join(top, name)).st_mode & 0o170000) == 0o140000]
        print(found, open("/proc/net/unix").read().count("@"))
        """,
        r"\[\] 0",
        timeout_s=60,
        survives=True,
    ),
    # --- Changing what is not its own
    _attack(
        "writes outside of its folders",
        """
        for folder in ("/", "/etc", "/usr/bin", "/run", "/opt/adlatus", "/opt/py/bin", "/var/tmp", "/dev", "/mnt",
                       "/proc/sys/kernel"):
            try: open(folder + "/x", "w"); print("BREACH", folder)
            except OSError: print("no")
        """,
        r"(no\n){10}",
        survives=True,
    ),
    _attack(
        "settings of the kernel",
        """
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger",
                     "/proc/sys/net/ipv4/ip_forward", "/sys/kernel/mm/ksm/run"):
            try: open(path, "w").write("1"); print("BREACH", path)
            except OSError: print("no")
        """,
        r"(no\n){5}",
        survives=True,
    ),
    _attack(
        "control groups",
        """
        import glob
        for path in ["/sys/fs/cgroup/cgroup.procs", *glob.glob("/sys/fs/cgroup/*/release_agent"),
                     *glob.glob("/sys/fs/cgroup/memory/memory.limit_in_bytes"), *glob.glob("/sys/fs/cgroup/*.max")]:
            try: open(path, "w").write("1"); print("BREACH", path)
            except OSError: pass
        print("tried")
        """,
        r"tried",
        survives=True,
    ),
    _attack(
        "safe from the OOM killer",
        "import os; os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000')",
        r"PermissionError",
        survives=True,
    ),
    _attack(
        "becomes root",
        """
        import os
        for become in (os.setuid, os.setgid):
            try: become(0); print("BREACH")
            except OSError: print("no")
        print(open("/proc/self/status").read().split("CapEff:")[1].split()[0],
              open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0])
        """,
        r"no\nno\n0000000000000000 1",
        survives=True,
    ),
    _attack(
        "programs with the rights of others",
        """
        import subprocess
        for command in ("su -c id", "mount -t tmpfs x /tmp", "passwd -d root"):
            try: print(subprocess.run(command.split(), capture_output=True, stdin=subprocess.DEVNULL).returncode != 0)
            except OSError: print(True)
        """,
        r"True\nTrue\nTrue",
        survives=True,
    ),
    _attack(
        "device nodes", "import os; os.mknod('/mnt/data/disk', 0o60600, os.makedev(254, 0))", r"Error", survives=True
    ),
    # --- Calls of the kernel
    _attack(
        "namespaces and mounts",
        CALL + _SYSCALLS + "print(call(272, 0x10000000), call(272, 0x20000), call(308, 0, 0), call(165, 0, 0, 0, 0, 0),"
        "call(155, 0, 0), call(161, b'/tmp'), call(428, -100, b'/', 1), call(430, b'tmpfs', 0))",
        r"^(EPERM ?){8}\n",
        survives=True,
    ),
    _attack(
        "namespaces by clone",
        CALL + _SYSCALLS + "print(call(56, 0x10000000 | 17, 0, 0, 0, 0), call(435, 0, 0))",
        r"EPERM ENOSYS",
        survives=True,
    ),
    _attack(
        "what kernels were broken by",
        CALL + _SYSCALLS + "print(call(321, 0, 0, 0), call(298, 0, 0, -1, -1, 0), call(323, 0), call(250, 0, 0), "
        "call(248, 0, 0, 0, 0, 0), call(425, 8, 0), call(246, 0, 0, 0, 0), call(175, 0, 0, 0), call(304, 0, 0, 0))",
        r"^(EPERM ?){9}\n",
        survives=True,
    ),
    _attack(
        "calls newer than the filter",
        CALL + _SYSCALLS + "print(call(500), call(0x40000000 + 39))",
        r"ENOSYS ENOSYS",
        survives=True,
    ),
    _attack(
        "32-bit calls",
        """
        import ctypes, mmap
        # getpid by int 0x80
        code = b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3"
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        print("BREACH", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
        """,
        r"\[died\]",
    ),
    # --- The network
    _attack(
        "sockets beyond the namespace",
        """
        import errno, socket
        for family, kind in ((40, 1), (16, 3), (17, 3), (38, 5), (31, 1)):
            try: socket.socket(family, kind, 0); print("BREACH", family)
            except OSError as error: print(errno.errorcode[error.errno])
        """,
        r"^(EAFNOSUPPORT\n){5}",
        survives=True,
    ),
    _attack(
        "raw sockets",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        r"PermissionError",
        survives=True,
    ),
    _attack(
        "the internet, the machine, its metadata",
        """
        import socket
        for address in ("1.1.1.1", "169.254.169.254", "172.17.0.1", "10.0.0.1", "192.168.0.1", "fd00::1"):
            for port in (22, 53, 80, 2375):
                try: socket.create_connection((address, port), 0.3); print("BREACH", address)
                except OSError: pass
        print("nobody")
        """,
        r"nobody",
        timeout_s=60,
        survives=True,
    ),
    _attack("names", "import socket; socket.getaddrinfo('example.com', 80)", r"gaierror", timeout_s=40, survives=True),
    _attack(
        "datagrams",
        """
        import socket
        try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 53)); print("BREACH")
        except OSError: print("unreachable")
        """,
        r"unreachable",
        survives=True,
    ),
]
