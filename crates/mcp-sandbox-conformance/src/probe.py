import ctypes, errno, mmap, os, platform, resource, signal, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
NR = dict(  # name: (x86_64, aarch64)
    acct=(163, 89), add_key=(248, 217), bpf=(321, 280), chroot=(161, 51), clone=(56, 220),
    clone3=(435, 435), clock_settime=(227, 112), fanotify_init=(300, 262), finit_module=(313, 273),
    fsconfig=(431, 431), fsmount=(432, 432), fsopen=(430, 430), init_module=(175, 105),
    io_uring_enter=(426, 426), io_uring_register=(427, 427), io_uring_setup=(425, 425),
    ioctl=(16, 29), kcmp=(312, 272), kexec_load=(246, 104), keyctl=(250, 219),
    memfd_secret=(447, 447), mount=(165, 40), mount_setattr=(442, 442), move_mount=(429, 429),
    name_to_handle_at=(303, 264), open_by_handle_at=(304, 265), open_tree=(428, 428),
    openat2=(437, 437), perf_event_open=(298, 241), personality=(135, 92), pidfd_getfd=(438, 438),
    pidfd_open=(434, 434), pivot_root=(155, 41), process_vm_readv=(310, 270), ptrace=(101, 117),
    quotactl=(179, 60), reboot=(169, 142), request_key=(249, 218), setns=(308, 268),
    settimeofday=(164, 170), socket=(41, 198), swapon=(167, 224), syslog=(103, 116),
    umount2=(166, 39), unshare=(272, 97), userfaultfd=(323, 282), fchmodat2=(452, 452),
    getpid=(39, 172),
)
BLOCKED = (errno.EPERM, errno.ENOSYS, errno.EACCES)


def call(name, *args):
    """A system call by name: (result, errno)."""
    number = NR[name][ARM] if isinstance(name, str) else name
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return result, ctypes.get_errno()


def say(is_open, text):
    print(("open " if is_open else "held ") + str(text))


def tried(action):
    """Whether an action works, and how not."""
    try:
        return True, action()
    except OSError as error:
        return False, errno.errorcode.get(error.errno, error)


def reach(*names):
    """Calls with nonsense arguments: any answer but a refusal means that they are reachable."""
    reached = []
    for name in names:
        _, error = call(name, -1, -1, -1, -1, -1)
        if error not in BLOCKED:
            reached.append(name + ":" + errno.errorcode.get(error, str(error)))
    say(reached, " ".join(reached) or "all refused")


def any_of(*actions):
    worked = [str(i) for i, action in enumerate(actions) if tried(action)[0]]
    say(worked, "worked: " + " ".join(worked) if worked else "none worked")


def write(path, flags=os.O_WRONLY | os.O_CREAT):
    os.close(os.open(path, flags, 0o644))


def read(path):
    with open(path, "rb") as file:
        return file.read(4096)


def secret(path, *more):
    """Reads a host's file by every way there is."""
    ways = [path, "/proc/1/root" + path, "/proc/self/root" + path, "/proc/1/cwd/../../.." + path,
            "/../../.." + path, "/proc/self/cwd/../../../.." + path]
    for fd in tried(lambda: os.listdir("/proc/self/fd"))[1] if os.access("/proc/self/fd", os.R_OK) else ():
        ways += ["/proc/self/fd/" + fd + "/.." * 8 + path, "/proc/1/fd/" + fd + "/.." * 8 + path]
    for way in ways + list(more):
        worked, got = tried(lambda: read(way))
        if worked:
            return say(True, way + " " + repr(got[:80]))
    say(False, "not readable by %d ways" % len(ways))


def set_id():
    """Sets the setuid bit by every call that can."""
    base = os.environ.get("TMPDIR", "/tmp") + "/setid-%d" % os.getpid()
    made = []

    def check(way, action):
        path = base + way
        try:
            action(path)
        except OSError:
            pass
        try:
            if os.lstat(path).st_mode & 0o6000:
                made.append(way)
            os.unlink(path)
        except OSError:
            pass

    def plain(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))

    for bits in (0o4755, 0o2755, 0o6755):
        check("chmod", lambda p: (plain(p), os.chmod(p, bits)))
        check("open", lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY, bits)))
        check("mknod", lambda p: os.mknod(p, 0o100000 | bits))

        def fchmod(p):
            fd = os.open(p, os.O_CREAT | os.O_WRONLY, 0o755)
            try:
                os.fchmod(fd, bits)
            finally:
                os.close(fd)
        check("fchmod", fchmod)

        def fchmodat2(p):
            plain(p)
            call("fchmodat2", -100, ctypes.c_char_p(p.encode()), bits, 0)
        check("fchmodat2", fchmodat2)

        def openat2(p):
            how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, bits, 0))
            fd, _ = call("openat2", -100, ctypes.c_char_p(p.encode()), how, 24)
            if fd >= 0:
                os.close(fd)
        check("openat2", openat2)
    say(made, " ".join(sorted(set(made))) or "no way")


def devices():
    base = os.environ.get("TMPDIR", "/tmp") + "/dev-%d" % os.getpid()
    any_of(*[lambda d=d, k=k: (os.mknod(base, k | 0o600, os.makedev(*d)), os.unlink(base))
             for d, k in (((254, 0), 0o60000), ((1, 1), 0o20000), ((10, 232), 0o20000))])


def namespaces():
    made = []
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if call("unshare", flag)[0] == 0 else 1)
        if os.waitpid(pid, 0)[1] == 0:
            made.append("unshare %x" % flag)
    result, _ = call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
        made.append("clone")
    args = ctypes.create_string_buffer(struct.pack("11Q", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0))
    result, _ = call("clone3", args, 88)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
        made.append("clone3")
    say(made, " ".join(made) or "none")


def status(*names):
    with open("/proc/self/status") as file:
        found = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    print(" ".join(found[name].strip() for name in names))


def foreign_calls():
    """Calls by other numbers and another architecture, in children that may die of it."""
    worked = []
    if not ARM:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if call(0x40000000 | 39)[0] > 0 else 1)
        if os.waitpid(pid, 0)[1] == 0:
            worked.append("x32")
        pid = os.fork()
        if pid == 0:
            code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20 (getpid); int 0x80; ret
            page = mmap.mmap(-1, 4096, prot=7)
            page.write(code)
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else 1)
        if os.waitpid(pid, 0)[1] == 0:
            worked.append("int80")
    say(worked, " ".join(worked) or "none")


def high_bits():
    """Arguments with bits that the kernel ignores."""
    worked = []
    master, slave = os.openpty()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        libc.ioctl(slave, 0x540E, 0)
        letter = ctypes.create_string_buffer(b"x")
        ok = [call("ioctl", slave, request, letter)[0] == 0 for request in (0x5412, 0x5412 | 1 << 32)]
        os._exit(0 if any(ok) else 1)
    if os.waitpid(pid, 0)[1] == 0:
        worked.append("TIOCSTI")
    for family in (40, 40 | 1 << 32, 17 | 1 << 40, 38 | 1 << 33):
        fd, _ = call("socket", family, 1 if family & 0xff != 17 else 3, 0)
        if fd >= 0:
            worked.append("socket %x" % family)
            os.close(fd)
    say(worked, " ".join(worked) or "none")


def families():
    worked = []
    for family in list(range(0, 46)):
        if family in (1, 2, 10, 16):
            continue
        for kind in (1, 2, 3, 5):
            fd, _ = call("socket", family, kind, 0)
            if fd >= 0:
                worked.append("%d/%d" % (family, kind))
                os.close(fd)
    for protocol in (4, 9, 12, 15, 21):
        fd, _ = call("socket", 16, 3, protocol)
        if fd >= 0:
            worked.append("netlink/%d" % protocol)
            os.close(fd)
    for family in (2, 10):
        fd, _ = call("socket", family, 3, 1)
        if fd >= 0:
            worked.append("raw/%d" % family)
            os.close(fd)
    say(worked, " ".join(worked) or "none")


def network(port):
    """Reaches for the host's loopback and for addresses that lead nowhere."""
    port = int(port)

    def tcp(family, address):
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(1)
            s.connect(address)

    def udp(address):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"x", address)
            time.sleep(0.05)

    def fast_open():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
            s.settimeout(1)
            s.sendto(b"x", 0x20000000, ("127.0.0.1", port))

    def multipath():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as s:
            s.settimeout(1)
            s.connect(("127.0.0.1", port))

    started = time.time()
    worked = [name for name, action in dict(
        v4=lambda: tcp(socket.AF_INET, ("127.0.0.1", port)),
        v6=lambda: tcp(socket.AF_INET6, ("::1", port)),
        mapped=lambda: tcp(socket.AF_INET6, ("::ffff:127.0.0.1", port)),
        fast_open=fast_open,
        multipath=multipath,
    ).items() if tried(action)[0]]
    tried(lambda: udp(("127.0.0.1", port)))
    tried(lambda: udp(("192.0.2.1", 9)))
    tried(lambda: tcp(socket.AF_INET, ("192.0.2.1", 9)))
    took = time.time() - started
    say(worked or took > 3, " ".join(worked) or "nothing reached in %.1f s" % took)


def unix(*addresses):
    """Connects to sockets: paths, and names behind an at sign."""
    def connect(address):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect("\0" + address[1:] if address[0] == "@" else address)
    any_of(*[lambda a=a: connect(a) for a in addresses])


def signals(victim):
    victim = int(victim)
    any_of(lambda: os.kill(victim, 0), lambda: signal.pidfd_send_signal(os.pidfd_open(victim), 0),
           lambda: os.kill(victim, signal.SIGTERM))


def first_process():
    """Reaches for the sandbox's own first process."""
    def ptrace():
        result, error = call("ptrace", 16, 1, 0, 0)
        if result < 0:
            raise OSError(error, "ptrace")

    def vm():
        local = ctypes.create_string_buffer(8)
        iov = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(local), 8))
        far = ctypes.create_string_buffer(struct.pack("QQ", 0x400000, 8))
        result, error = call("process_vm_readv", 1, iov, 1, far, 1, 0)
        if result < 0:
            raise OSError(error, "process_vm_readv")

    def take():
        fd = os.pidfd_open(1)
        result, error = call("pidfd_getfd", fd, 3, 0)
        if result < 0:
            raise OSError(error, "pidfd_getfd")

    any_of(ptrace, vm, take, lambda: read("/proc/1/environ"), lambda: read("/proc/1/mem"),
           lambda: os.listdir("/proc/1/fd"), lambda: os.readlink("/proc/1/exe"), lambda: os.listdir("/proc/1/root"))


def core():
    print(resource.getrlimit(resource.RLIMIT_CORE)[1])


def forks(most):
    """Forks until it is refused."""
    children, refused = [], False
    for _ in range(int(most)):
        try:
            pid = os.fork()
        except OSError:
            refused = True
            break
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    say(not refused, len(children))


def fill(path, most):
    """Writes until it is refused."""
    written, chunk = 0, b"x" * 65536
    try:
        with open(path, "wb", buffering=0) as file:
            while written < int(most):
                written += file.write(chunk)
    except OSError as error:
        os.unlink(path)
        return say(False, "%s after %d" % (errno.errorcode[error.errno], written))
    os.unlink(path)
    say(True, written)


def many(path, most):
    """Makes files until it is refused."""
    os.mkdir(path)
    for i in range(int(most)):
        worked, why = tried(lambda: write("%s/%d" % (path, i)))
        if not worked:
            return say(False, "%s after %d" % (why, i))
    say(True, most)


def spin(seconds):
    """How much processor time two busy processes get."""
    if os.fork() == 0:
        end = time.time() + float(seconds)
        while time.time() < end:
            pass
        os._exit(0)
    end = time.time() + float(seconds)
    while time.time() < end:
        pass
    os.wait()
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print("%.3f" % (mine.ru_utime + theirs.ru_utime))


def zombies(count):
    """Leaves orphans that die at once."""
    for _ in range(int(count)):
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(pid, 0)
    end = time.time() + 5
    while time.time() < end:
        left = 0
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                worked, text = tried(lambda: read("/proc/%s/stat" % entry))
                left += worked and b") Z" in text
        if not left:
            return say(False, "all reaped")
        time.sleep(0.02)
    say(True, left)


def shm(action):
    """A System V segment with a fixed key."""
    libc.shmget.restype = ctypes.c_int
    flags = 0o1666 if action == "make" else 0o666
    result = libc.shmget(0x5eed, 4096, flags)
    say(result >= 0, result)


def sock(action, name):
    worked, why = tried(lambda: socket.socket(socket.AF_UNIX).close())
    if not worked:
        return say(False, why)
    with socket.socket(socket.AF_UNIX) as s:
        if action == "listen":
            # Where no such socket can be made there is nothing to reach, either.
            s.bind("\0" + name)
            s.listen()
            print("open", flush=True)
            time.sleep(20)
        else:
            any_of(lambda: s.connect("\0" + name))


def main():
    action, args = globals()[sys.argv[1]], sys.argv[2:]
    action(*args)
    sys.stdout.flush()


main()
