# Times what programs do to trees of files in the directory given, and prints a line of JSON: milliseconds, for each of many where
# there are many. What needs a program that is not there is left out.
import base64, hashlib, io, json, os, shutil, subprocess, sys, tarfile, time

top, files = os.path.join(sys.argv[1], "trees"), int(sys.argv[2])
shutil.rmtree(top, ignore_errors=True)
os.makedirs(top)
os.chdir(top)
os.environ.update(HOME=top, NPM_CONFIG_UPDATE_NOTIFIER="false", GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", GIT_AUTHOR_NAME="b", GIT_AUTHOR_EMAIL="b@b",
                  GIT_COMMITTER_NAME="b", GIT_COMMITTER_EMAIL="b@b")
out = {}


def timed(name, f, per=1):
    begin = time.monotonic()
    f()
    out[name] = (time.monotonic() - begin) * 1000 / per


def run(*argv, **kw):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, **kw)


def name(i):
    return "repo/d%02d/f%d" % (i % 100, i)


def create():
    for i in range(100):
        os.makedirs("repo/d%02d" % i)
    for i in range(files):
        fd = os.open(name(i), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, b"some text %d\n" % i)
        os.close(fd)


def each(f):
    for i in range(files):
        f(name(i))


timed("create", create, files)
timed("stat", lambda: each(os.stat), files)
run("git", "init", "-q", "repo")
timed("git_add", lambda: run("git", "-C", "repo", "add", "-A"), files)
run("git", "-C", "repo", "commit", "-qm", "all")
timed("git_status", lambda: run("git", "-C", "repo", "status", "--porcelain"))
timed("git_status_again", lambda: run("git", "-C", "repo", "status", "--porcelain"))
timed("git_clone", lambda: run("git", "clone", "-q", "file://" + top + "/repo", "clone"), files)
timed("unlink", lambda: each(os.unlink), files)


# npm needs no network for packages that are files. They are as most packages are: many small modules.
def package(i):
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w:gz") as tar:
        def add(path, text):
            info = tarfile.TarInfo("package/" + path)
            info.size, info.mode = len(text), 0o644
            tar.addfile(info, io.BytesIO(text))
        add("package.json", json.dumps({"name": "p%d" % i, "version": "1.0.0", "main": "index.js"}).encode())
        add("index.js", b"".join(b"exports.m%d = require('./lib/m%d')\n" % (j, j) for j in range(28)))
        for j in range(28):
            add("lib/m%d.js" % j, b"module.exports = function () { return %d }\n" % j * (1 + j))
    return buf.getvalue()


if shutil.which("npm"):
    packages = files // 60
    os.makedirs("app/vendor")
    lock = {"name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": {}}
    wants = {}
    for i in range(packages):
        data, path = package(i), "vendor/p%d.tgz" % i
        with open("app/" + path, "wb") as f:
            f.write(data)
        wants["p%d" % i] = "file:" + path
        lock["packages"]["node_modules/p%d" % i] = {"version": "1.0.0", "resolved": "file:" + path,
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()}
    lock["packages"][""] = {"name": "app", "version": "1.0.0", "dependencies": wants}
    for path, text in {"package.json": {"name": "app", "version": "1.0.0", "dependencies": wants}, "package-lock.json": lock}.items():
        with open("app/" + path, "w") as f:
            json.dump(text, f)
    timed("npm_ci", lambda: run("npm", "ci", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", cwd="app"), packages * 30)
    have = sum(len(f) for _, _, f in os.walk("app/node_modules"))
    assert have >= packages * 30, have

if shutil.which("gcc"):
    os.makedirs("c")
    for i in range(20):
        with open("c/m%d.c" % i, "w") as f:
            f.write("int m%d(int x) { return x + %d; }\n" % (i, i))
    with open("c/main.c", "w") as f:
        f.write("#include <stdio.h>\n" + "".join("int m%d(int);\n" % i for i in range(20)) +
                "int main(void) { int x = 0; " + "".join("x = m%d(x); " % i for i in range(20)) + 'printf("%d\\n", x); return 0; }\n')

    def build():
        for path in sorted(os.listdir("c")):
            run("gcc", "-O1", "-c", path, cwd="c")
        run("sh", "-c", "gcc *.o -o all && test $(./all) = 190", cwd="c")
    timed("c_build", build, 21)

os.chdir("/")
shutil.rmtree(top)
print(json.dumps(out))
