"""What a program in another language than Python may try against the sandbox: part of `make test-languages`.

Each attack runs in every language whose toolchain is here.  Where it is for something outside, the test looks outside
whether it got there; where it is for amounts, it must be stopped, and nothing may be left of it.
"""

import dataclasses
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from r1repro.rewards import languages, sandbox

SECRET = "a-secret-4711"
HERE = [name for name in languages.LANGUAGES if not languages.missing(name)]
RUNTIMES = [name for name in HERE if name != "ts"]
"""TypeScript's programs run as JavaScript's do."""

BUILT = {"java": 3.0, "cpp": 2.0, "cs": 1.0, "ts": 4.0}
"""Seconds that a quiet machine needs to build and start a program, and more; others start at once."""

FRAMES = {
    "java": "import java.util.*; import java.nio.file.*;\nclass Problem {{}}\nclass Tests {{\n    public static void "
    "main(String[] words) throws Throwable {{\n{}\n    }}\n}}\n",
    "cpp": "#include <cstdio>\n#include <cstdlib>\n#include <cstring>\n#include <fstream>\n#include <iostream>\n"
    "#include <unistd.h>\n#include <arpa/inet.h>\n#include <sys/socket.h>\nextern char **environ;\n"
    "int main() {{\n{}\n}}\n",
    "cs": "using System; using System.IO; using System.Collections; using System.Diagnostics; using System.Threading;\n"
    "class Tests {{ public static void Main(string[] words) {{\n{}\n}} }}\n",
    "js": "{}\n",
    "ts": "declare var require: any, process: any, Buffer: any;\n{}\n",
    "php": "<?php\n{}\n",
    "sh": "{}\n",
}

READ = {
    "java": 'System.out.println("GOT " + Files.readString(Path.of("{}")));',
    "cpp": 'std::ifstream f("{}"); std::string s; std::getline(f, s); std::cout << "GOT " << s << std::endl;',
    "cs": 'Console.WriteLine("GOT " + File.ReadAllText("{}"));',
    "js": 'console.log("GOT " + require("fs").readFileSync("{}", "utf8"));',
    "php": 'echo "GOT " . file_get_contents("{}");',
    "sh": 'echo GOT "$(cat {})"',
}
WRITE = {
    "java": 'Files.writeString(Path.of("{}"), "x"); System.out.println("WRITTEN");',
    "cpp": 'std::ofstream f("{}"); f << "x"; f.close(); if (f.good()) std::puts("WRITTEN");',
    "cs": 'File.WriteAllText("{}", "x"); Console.WriteLine("WRITTEN");',
    "js": 'require("fs").writeFileSync("{}", "x"); console.log("WRITTEN");',
    "php": 'if (file_put_contents("{}", "x")) echo "WRITTEN";',
    "sh": "echo x > {} && echo WRITTEN",
}
ENVIRONMENT = {
    "java": "System.out.println(System.getenv());",
    "cpp": "for (char **e = environ; *e; e++) std::puts(*e);",
    "cs": "foreach (DictionaryEntry e in Environment.GetEnvironmentVariables()) "
    'Console.WriteLine(e.Key + "=" + e.Value);',
    "js": "console.log(process.env);",
    "php": "print_r(getenv());",
    "sh": "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'",
}
CONNECT = {
    "java": 'new java.net.Socket("127.0.0.1", {}); System.out.println("CONNECTED");',
    "cpp": "int s = socket(AF_INET, SOCK_STREAM, 0); sockaddr_in a{{}}; "
    "a.sin_family = AF_INET; a.sin_port = htons({}); "
    'a.sin_addr.s_addr = inet_addr("127.0.0.1"); if (!connect(s, (sockaddr *)&a, sizeof a)) std::puts("CONNECTED");',
    "cs": 'new System.Net.Sockets.TcpClient("127.0.0.1", {}); Console.WriteLine("CONNECTED");',
    "js": 'require("net").connect({}, "127.0.0.1", () => {{ console.log("CONNECTED"); process.exit(); }});',
    "php": 'if (fsockopen("127.0.0.1", {}, $number, $text, 1)) echo "CONNECTED";',
    "sh": "exec 3<>/dev/tcp/127.0.0.1/{} && echo CONNECTED",
}
FLOOD = {
    "java": 'String s = "x".repeat(100000); while (true) System.out.println(s);',
    "cpp": "std::string s(100000, 'x'); while (true) std::cout << s << std::endl;",
    "cs": "var s = new string('x', 100000); while (true) Console.WriteLine(s);",
    "js": 'const s = "x".repeat(100000); for (;;) require("fs").writeSync(1, s);',
    "php": 'while (true) echo str_repeat("x", 100000);',
    "sh": "yes",
}
SPIN = {
    "java": "long n = 0; while (true) n++;",
    "cpp": "volatile long n = 0; while (true) n++;",
    "cs": "long n = 0; while (true) n++;",
    "js": "let n = 0; for (;;) n++;",
    "php": "$n = 0; while (true) $n++;",
    "sh": "while :; do :; done",
}
SLEEP = {
    "java": "Thread.sleep(99999);",
    "cpp": "sleep(99);",
    "cs": "Thread.Sleep(99999);",
    "js": "setTimeout(() => 0, 99999);",
    "php": "sleep(99);",
    "sh": "sleep 99",
}
FORKS = {
    "java": 'while (true) try {{ new ProcessBuilder("/usr/bin/sleep", "{0}").start(); }} '
    "catch (java.io.IOException e) {{ Thread.sleep(1); }}",
    "cpp": 'if (!fork()) execl("/usr/bin/sleep", "sleep", "{0}", (char *)0); while (true) fork();',
    "cs": 'while (true) try {{ Process.Start("/usr/bin/sleep", "{0}"); }} catch (Exception) {{ }}',
    "js": 'const go = () => {{ require("child_process").spawn("/usr/bin/sleep", ["{0}"]).on("error", () => 0); '
    "setTimeout(go, 0); }}; go();",
    "php": 'while (true) @proc_open("/usr/bin/sleep {0}", [], $pipes);',
    "sh": "sleep {0} & b() {{ b | b & }}; while :; do b; done",
}
MEMORY = {
    "java": "List<long[]> held = new ArrayList<>(); while (true) held.add(new long[1 << 20]);",
    "cpp": "while (true) std::memset(std::malloc(1 << 24), 1, 1 << 24);",
    "cs": "var held = new ArrayList(); while (true) held.Add(new long[1 << 20]);",
    "js": "const held: any[] = []; for (;;) held.push(Buffer.alloc(1 << 24, 1));",
    "php": 'ini_set("memory_limit", "-1"); $held = []; while (true) $held[] = str_repeat("x", 1 << 24);',
    "sh": "x=$(head -c 4G /dev/zero | tr '\\0' x); echo ${#x}",
}  # fmt: skip


def attacked(name: str, attacks: dict[str, str], *words, wall_s: float = 0, cpu_s: int = 9) -> sandbox.Ended:
    """How a program of a language with this body ends."""
    body = attacks["js" if name == "ts" and "ts" not in attacks else name]
    if name == "js":
        body = body.replace(": any[]", "")
    body = body.format(*words) if words else body
    limits = languages.LANGUAGES[name].limits
    if wall_s:
        limits = dataclasses.replace(limits, cpu_s=cpu_s, wall_s=wall_s + BUILT.get(name, 0))
    ended = languages.run(name, {languages.LANGUAGES[name].file: FRAMES[name].format(body)}, limits=limits)
    assert ended.status != languages.NOT_BUILT, ended.output.decode()
    return ended


def running() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


if HERE:  # each language that is here, so nothing is ever skipped
    every = pytest.mark.parametrize("name", HERE)

    runtime = pytest.mark.parametrize("name", RUNTIMES)

    @every
    def test_a_file_in_the_home_directory_cannot_be_read(name):
        home = Path.home() / f".r1repro-secret-{os.getpid()}"
        home.write_text(SECRET)
        try:
            assert SECRET not in attacked(name, READ, home).output.decode()
        finally:
            home.unlink()

    @runtime
    def test_a_file_that_is_there_can_be_read(name):
        """So that the attack above fails for the right reason."""
        said = attacked(name, READ, "/proc/self/stat").output
        assert b"GOT" in said and b"(" in said

    @runtime
    @pytest.mark.parametrize("place", ["/usr/lib", "/etc"])
    def test_nothing_can_be_written_outside_of_tmp(name, place):
        path = f"{place}/r1repro-{os.getpid()}"
        assert b"WRITTEN" not in attacked(name, WRITE, path).output
        assert not Path(path).exists()

    @runtime
    def test_the_environment_is_empty(name, monkeypatch):
        monkeypatch.setenv("R1REPRO_SECRET", SECRET)
        said = attacked(name, ENVIRONMENT).output.decode()
        assert SECRET not in said and "/tmp" in said

    @runtime
    def test_the_network_has_no_way_out(name):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            assert b"CONNECTED" not in attacked(name, CONNECT, server.getsockname()[1]).output
            with pytest.raises(TimeoutError):
                server.accept()

    @runtime
    def test_endless_output_is_stopped(name):
        ended = attacked(name, FLOOD)
        most = languages.LANGUAGES[name].limits.output_bytes + (1 << 16)
        assert "output" in ended.stopped and len(ended.output) <= most

    @runtime
    def test_an_endless_loop_is_stopped(name):
        ended = attacked(name, SPIN, wall_s=20.0, cpu_s=3 if name in BUILT else 1)  # a compiler has the same limit
        assert "CPU time" in ended.stopped or "clock" in ended.stopped

    @runtime
    def test_a_program_that_sleeps_is_stopped(name):
        assert "clock" in attacked(name, SLEEP, wall_s=1.0).stopped

    @runtime
    def test_a_fork_bomb_is_contained_and_nothing_of_it_is_left(name):
        mark = f"6{os.getpid()}"
        ended = attacked(name, FORKS, mark, wall_s=2.0)
        assert ended.stopped or ended.status
        for _ in range(30):
            if f"sleep {mark}" not in running():
                return
            time.sleep(0.1)
        raise AssertionError("processes left behind")

    @runtime
    def test_memory_is_limited(name):
        ended = attacked(name, MEMORY)
        assert ended.stopped or ended.status


def test_the_default_has_none_of_what_other_languages_see():
    """Limits of Python's programs are those that they were: the other languages widen their own alone."""
    assert (sandbox.Limits().address_bytes, sandbox.Limits().visible) == (0, ())
    words = sandbox.bwrap("root", sandbox.Limits())
    outside = [words[i + 2] for i, word in enumerate(words) if word in ("--ro-bind", "--ro-bind-try")]
    prefix = os.path.realpath(__import__("sys").base_prefix)
    assert set(outside) <= {"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", prefix}
