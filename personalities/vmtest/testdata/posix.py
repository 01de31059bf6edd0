# What programs rely on, in the directory that this runs in, and a file under random operations against a model of it (as fsx does).
import errno, fcntl, mmap, os, random, stat, sys

os.mkdir("t")
os.chdir("t")
failed = []


def case(f):
    try:
        f()
    except Exception as e:  # told at the end, all of them
        failed.append("%s: %s: %s" % (f.__name__, type(e).__name__, e))


def refused(number, f, *args):
    try:
        f(*args)
    except OSError as e:
        assert e.errno == number, "errno %s, not %s" % (errno.errorcode[e.errno], errno.errorcode[number])
        return
    raise AssertionError("it is not refused")


def put(name, text=b"x", mode=0o644):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, text)
    os.close(fd)


def get(name):
    with open(name, "rb") as f:
        return f.read()


@case
def exclusive():
    os.close(os.open("excl", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    refused(errno.EEXIST, os.open, "excl", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


@case
def append():
    put("app", b"one")
    fd = os.open("app", os.O_WRONLY | os.O_APPEND)
    put("app", b"four")
    os.write(fd, b"five")
    os.close(fd)
    assert get("app") == b"fourfive", get("app")


@case
def rename():
    put("from", b"new"), put("to", b"old")
    fd = os.open("to", os.O_RDONLY)
    os.rename("from", "to")
    assert get("to") == b"new" and os.read(fd, 9) == b"old"
    os.close(fd)
    refused(errno.ENOENT, os.rename, "from", "x")
    os.mkdir("dir"), put("dir/f")
    os.mkdir("full"), put("full/f")
    refused(errno.ENOTEMPTY, os.rename, "dir", "full")
    refused(errno.EINVAL, os.rename, "dir", "dir/in")
    os.rename("dir", "moved")
    assert os.listdir("moved") == ["f"]


@case
def unlinked():
    put("gone", b"still here")
    fd = os.open("gone", os.O_RDWR)
    os.unlink("gone")
    assert os.read(fd, 99) == b"still here" and os.fstat(fd).st_nlink == 0
    os.write(fd, b"!")
    os.close(fd)
    refused(errno.ENOENT, os.stat, "gone")


@case
def links():
    put("a"), os.link("a", "b")
    assert os.stat("a").st_nlink == 2 and os.path.samefile("a", "b")
    os.unlink("a")
    assert os.stat("b").st_nlink == 1 and get("b") == b"x"
    os.symlink("b", "s"), os.symlink("nowhere", "broken")
    assert os.readlink("s") == "b" and get("s") == b"x"
    refused(errno.ENOENT, os.stat, "broken")
    refused(errno.EEXIST, os.symlink, "b", "s")


@case
def attributes():
    put("at", b"12345", 0o640)
    assert stat.S_IMODE(os.stat("at").st_mode) == 0o640 and os.stat("at").st_uid == 0
    os.chmod("at", 0o755), os.utime("at", ns=(1_000_000_001, 2_000_000_003))
    st = os.stat("at")
    assert stat.S_IMODE(st.st_mode) == 0o755 and st.st_mtime_ns == 2_000_000_003, st
    os.truncate("at", 2)
    assert get("at") == b"12" and os.stat("at").st_mtime_ns != 2_000_000_003
    os.setxattr("at", "user.x", b"v")
    assert os.getxattr("at", "user.x") == b"v" and os.listxattr("at") == ["user.x"]
    refused(errno.ENOTSUP, os.setxattr, "at", "trusted.x", b"v")


@case
def names():
    for name in [b"\xff\xfe", b"new\nline", b" ", b"-", "\u00e4\u4e16".encode(), b"n" * 255]:
        put(name, name)
        assert get(name) == name and name in os.listdir(b".")
    refused(errno.ENAMETOOLONG, put, b"n" * 256)


@case
def directories():
    os.makedirs("d/" + "/".join("deep" for _ in range(40)))
    refused(errno.ENOTEMPTY, os.rmdir, "d")
    refused(errno.EEXIST, os.mkdir, "d")
    refused(errno.ENOTDIR, os.listdir, "excl")
    os.mkdir("many")
    for i in range(1500):
        os.close(os.open("many/%d" % i, os.O_CREAT | os.O_WRONLY))
    assert sorted(os.listdir("many")) == sorted(str(i) for i in range(1500))
    for i in range(1500):
        os.unlink("many/%d" % i)
    os.rmdir("many")


@case
def sparse():
    fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"end", 100 << 20)
    assert os.fstat(fd).st_size == (100 << 20) + 3 and os.fstat(fd).st_blocks * 512 < 1 << 20
    assert os.pread(fd, 4, 50 << 20) == b"\0\0\0\0"
    os.close(fd), os.unlink("sparse")


@case
def locks():
    a, b = os.open("lock", os.O_RDWR | os.O_CREAT), os.open("lock", os.O_RDWR)
    fcntl.flock(a, fcntl.LOCK_EX)
    refused(errno.EWOULDBLOCK, fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(a, fcntl.LOCK_UN), fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(a), os.close(b)


@case
def open_files():
    fds = []
    for i in range(900):
        fds.append(os.open("open", os.O_RDWR | os.O_CREAT))
    for fd in fds:
        os.close(fd)


@case
def special():
    os.mkfifo("fifo")
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    refused(errno.EPERM, os.mknod, "device", stat.S_IFBLK | 0o600, os.makedev(8, 0))


@case
def fsx():
    seed = int(sys.argv[1])
    r = random.Random(seed)
    most, model = 200_000, bytearray()
    fd = os.open("fsx", os.O_RDWR | os.O_CREAT)
    for n in range(600):
        at, size = r.randrange(most), r.randrange(1, 40_000)
        op = r.randrange(6)
        if op <= 1:
            data = r.randbytes(size)
            if len(model) < at:
                model.extend(bytes(at - len(model)))
            model[at:at + size] = data
            os.pwrite(fd, data, at)
        elif op == 2:
            os.ftruncate(fd, at)
            model = model[:at] + bytearray(max(0, at - len(model)))
        elif op == 3 and len(model) > 0:
            at %= len(model)
            with mmap.mmap(fd, len(model)) as m:
                part = r.randbytes(min(size, len(model) - at))
                m[at:at + len(part)] = part
                model[at:at + len(part)] = part
        elif op == 4:
            os.close(fd)
            fd = os.open("fsx", os.O_RDWR)
        got = os.pread(fd, size, at)
        assert got == bytes(model[at:at + size]), "seed %d, operation %d: wrong bytes at %d" % (seed, n, at)
    assert os.fstat(fd).st_size == len(model), "seed %d: size %d, not %d" % (seed, os.fstat(fd).st_size, len(model))
    os.close(fd)
    put("fsx.model", bytes(model))


os.chdir("..")
if failed:
    print("\n".join(failed))
    sys.exit(1)
