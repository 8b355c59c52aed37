#!/bin/sh
# SPDX-License-Identifier: MIT
# check_malloc_programs.sh LIBRARY PROGRAM
# Programs that were made for the C library's malloc, unmodified, with libvmkit-malloc.so in its place: does each say the
# same with both? PROGRAM is malloc_operators. What is missing fails; scripts/test.sh installs it.
set -eu
LC_ALL=C
export LC_ALL
[ $# = 2 ] || { echo "usage: check_malloc_programs.sh LIBRARY PROGRAM" >&2 && exit 2; }
top=$(cd "$(dirname "$0")/.." && pwd)
library=$1
program=$2
PATH=/usr/bin:/bin:$PATH # the system's own, rather than a script that stands before it
exec </dev/null # nothing shall wait for a terminal
tmp=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 1' INT TERM
fail() {
    echo "check_malloc_programs: $*" >&2
    exit 1
}

# check NAME MODES FUNCTION: it is called three times or twice, in a folder of its own each time: with the C library's
# malloc, with vmkit's, and (MODES says "hardened") with a hardened heap. What it prints must be the same. It starts
# programs by `run`.
check() {
    name=$1
    for mode in system vmkit $2; do
        mkdir -p "$tmp/$name.$mode"
        begun=$(date +%s)
        (cd "$tmp/$name.$mode" && $3 >"$tmp/$name.$mode.out" 2>"$tmp/$name.$mode.err") || {
            tail -n 20 "$tmp/$name.$mode.out" "$tmp/$name.$mode.err" >&2
            fail "$name fails with malloc of: $mode"
        }
        [ -s "$tmp/$name.$mode.out" ] || fail "$name says nothing"
        cmp "$tmp/$name.system.out" "$tmp/$name.$mode.out" || {
            diff "$tmp/$name.system.out" "$tmp/$name.$mode.out" | head -n 20 >&2
            fail "$name says something else with malloc of: $mode"
        }
        if [ "$mode" != system ]; then
            grep -q '^vmkit: process' "$tmp/$name.$mode.report" || fail "$name does not use the library"
        fi
        echo "$name, $mode: $(($(date +%s) - begun)) s"
    done
}
run() {
    case $mode in
    system) "$@" ;;
    vmkit) reported VMKIT_HARDENED=0 "$@" ;;
    hardened) reported VMKIT_HARDENED=1 "$@" ;;
    esac
}
# Its report goes where standard error goes, so that is kept apart.
reported() { env VMKIT_STATS=1 LD_PRELOAD="$library" "$@" 2>>"$tmp/$name.$mode.report"; }

# --- the programs -----------------------------------------------------------------------------------------------------

# Its own regression tests too, where Debian's libpython3.N-testsuite is there. They want standard error for themselves.
python() {
    if [ "$mode" = vmkit ] && python3 -c 'import test.test_dict, test.test_threading' 2>/dev/null; then
        LD_PRELOAD=$library python3 -m test -q -j2 test_dict test_list test_set test_json test_threading >log 2>&1 ||
            { cat log && return 1; }
    fi
    cat >script.py <<'END'
import hashlib, json, pickle, queue, re, threading, zlib

words = {}
for i in range(200000):
    words["key %d" % (i * 7919 % 50021)] = [i, str(i), {"n": i}]
for i in range(0, 50021, 3):
    words.pop("key %d" % i, None)
text = json.dumps(words, sort_keys=True)
assert json.loads(text) == words and pickle.loads(pickle.dumps(words)) == words
print(len(text), hashlib.sha256(text.encode()).hexdigest(), len(zlib.compress(text.encode())))
print(len(re.findall(r'"n": (\d+)1}', text)), sum(sorted(range(300000), key=lambda n: n * 31 % 1009)[:1000]))

todo, done = queue.Queue(), queue.Queue()
def work():
    while True:
        n = todo.get()
        if n is None:
            return
        try:
            done.put(hashlib.md5(b"x" * (n * 37 % 100000)).hexdigest())
            [][n]
        except IndexError as error:
            done.put(str(error))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for n in range(3000):
    todo.put(n)
for thread in threads:
    todo.put(None)
for thread in threads:
    thread.join()
print(hashlib.md5("".join(sorted(done.get() for _ in range(6000))).encode()).hexdigest())
for n in range(300):
    thread = threading.Thread(target=lambda: bytearray(n * 1000).decode())
    thread.start()
    thread.join()
END
    run python3 script.py
}

perl_script() {
    cat >script.pl <<'END'
use strict; use warnings;
my (%all, @lines);
for my $i (0 .. 30000) { push @{$all{$i * 7919 % 20011}}, "line $i " . "x" x ($i % 200); }
delete $all{$_ * 3} for 0 .. 6000;
for my $k (sort { $a <=> $b } keys %all) { push @lines, join ",", map { my $s = $_; $s =~ s/(\d+)/<$1>/g; $s } @{$all{$k}}; }
my $text = join "\n", @lines;
my %count; $count{$_}++ for $text =~ /\w+/g;
print length($text), " ", scalar(keys %count), " ", unpack("%32C*", $text), "\n";
for my $n (1 .. 200) { my $s = "ab" x ($n * 5000); $s =~ s/ba/c/g; print length($s), "\n" if $n % 50 == 0; }
my @nested = map { { id => $_, list => [ map { { x => $_ } } 1 .. 50 ] } } 1 .. 2000;
my $sum = 0; $sum += $_->{x} for map { @{$_->{list}} } @nested; print "$sum\n";
END
    run perl script.pl
}

# A history of 400 changes, written in the form that git imports.
git_history() {
    awk 'BEGIN {
        for (i = 1; i <= 400; i++) {
            text = ""
            for (j = 0; j < 200; j++) text = text "line " (i * 7919 + j * 31) % 1009 " of change " int(i / 7) "\n"
            printf "commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 12\nchange %05d\n", 1700000000 + i, i
            printf "M 100644 inline folder%d/file%d\ndata %d\n%s\n", i % 7, i % 50, length(text), text
        }
        print "done"
    }' >stream
    export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1
    run git init -q -b main repository
    run git -C repository fast-import --quiet --done <stream
    run git -C repository checkout -q main
    run git -C repository -c gc.autoDetach=false -c pack.threads=4 gc -q --aggressive --prune=now
    run git -C repository fsck --full --strict
    run git -C repository log --stat -p | cksum
    run git -C repository log --format='%h %s' --follow folder3/file3
    run git -C repository blame folder3/file3 | cksum
    run git -C repository rev-parse HEAD
}

sqlite() {
    cat >script.sql <<'END'
pragma journal_mode = off;
pragma synchronous = off;
create table t(id integer primary key, a text, b integer, c real);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000)
insert into t select i, 'text ' || (i * 7919 % 1000003), i * 31 % 5003, i / 7.0 from n;
commit;
create index t_b on t(b, a);
select count(*), sum(b), sum(length(a)) from t;
select b, count(*), max(a) from t group by b order by 2 desc, 1 limit 10;
delete from t where b % 3 = 0;
update t set a = a || ' and more' where b % 5 = 1;
select group_concat(a) from (select a from t order by a desc limit 100);
vacuum;
pragma integrity_check;
END
    run sqlite3 data.db <script.sql
}

compile() {
    for file in heap/slab heap/pages table/table_sparse; do
        run gcc -std=c11 -O2 -g0 -I"$top" -I"$top/src" -I"$top/src/posix" -c "$top/src/common/$file.c" -o out.o
        cksum out.o
    done
}

# Redis' server is the same program as one of its tools, which goes by its name; so none has to be installed that starts
# at once and with the machine.
redis() {
    ln -s "$(command -v redis-check-rdb)" redis-server
    run ./redis-server --port 0 --unixsocket "$PWD/socket" --save '' --appendonly no --maxmemory 200mb --daemonize no \
        --activedefrag no --logfile "$PWD/log" &
    server=$!
    tries=0
    until redis-cli -s socket ping >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || return 1
        sleep 0.1
    done
    redis-benchmark -s socket -q -n 10000 -r 10000 -d 200 -P 16 -c 20 \
        -t set,get,incr,lpush,rpop,sadd,hset,spop,zadd,mset >/dev/null
    awk 'BEGIN {
        for (i = 0; i < 10000; i++) {
            printf "set mine:%d %0*d\nrpush list:%d %d\nzadd rank %d member%d\n", i, i % 3000 + 1, i, i % 100, i, i * 31 % 1009, i
            if (i % 3 == 0) printf "del mine:%d\nappend mine:%d more\n", i - 30, i - 7
        }
        print "strlen mine:29\nlrange list:7 0 -1\nzrange rank 0 200\neval \"return #redis.call(\x27keys\x27,\x27mine:*\x27)\" 0"
    }' | redis-cli -s socket | cksum
    redis-cli -s socket shutdown nosave
    wait "$server"
    server=
}

exceptions() { run "$program" 8 20000; }

check python hardened python
check perl "" perl_script
check git "" git_history
check sqlite "" sqlite
check gcc hardened compile
check redis "" redis
check exceptions hardened exceptions
