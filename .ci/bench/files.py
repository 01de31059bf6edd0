# Times file operations in the directory given, and prints a line of JSON: MB/s, and milliseconds for each of many.
import json, os, random, shutil, subprocess, sys, time

top = os.path.join(sys.argv[1], "bench")
shutil.rmtree(top, ignore_errors=True)
os.makedirs(top)
os.chdir(top)
out, block, size = {}, os.urandom(1 << 20), 48


def timed(name, f, per=None):
    begin = time.monotonic()
    f()
    took = time.monotonic() - begin
    out[name] = size / took if per is None else took * 1000 / per


def write():
    fd = os.open("large", os.O_WRONLY | os.O_CREAT)
    for _ in range(size):
        os.write(fd, block)
    os.fsync(fd)
    os.close(fd)


def read():
    fd = os.open("large", os.O_RDONLY)
    while os.read(fd, 1 << 20):
        pass
    os.close(fd)


def forget():
    subprocess.run(["sync"], check=True)
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


def random_io(flags):
    fd = os.open("large", flags)
    for _ in range(500):
        at = random.randrange(size * 256) * 4096
        if flags == os.O_RDONLY:
            os.pread(fd, 4096, at)
        else:
            os.pwrite(fd, block[:4096], at)
    os.close(fd)


def many(f, n=1000):
    for i in range(n):
        f("small%d" % i)


def create(name):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, b"some text\n")
    os.close(fd)


timed("write", write)
forget()
timed("read", read)
timed("reread", read)
timed("random_write", lambda: random_io(os.O_WRONLY), 500)
forget()
timed("random_read", lambda: random_io(os.O_RDONLY), 500)
timed("create", lambda: many(create), 1000)
timed("stat", lambda: many(os.stat), 1000)
timed("list", lambda: [os.listdir(".") for _ in range(10)], 10)
timed("unlink", lambda: many(os.unlink), 1000)
os.chdir("/")
shutil.rmtree(top)
print(json.dumps(out))
