// SPDX-License-Identifier: MIT

// What the workloads of the suite "gc" have in common, in Go: see work.h.
package main

import (
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type arguments struct {
	size     int
	threads  int
	mode     string
	began    time.Time
	beganCPU time.Duration
}

func fail(what string) {
	fmt.Fprintln(os.Stderr, "work:", what)
	os.Exit(1)
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		fail(err.Error())
	}
	return value
}

// MARKERS is how many processors all of Go may use; 0: its default.
func begin() arguments {
	if len(os.Args) < 4 {
		fail("usage: gc_NAME_go SIZE THREADS MARKERS [MODE]")
	}
	a := arguments{size: number(os.Args[1]), threads: number(os.Args[2])}
	if len(os.Args) > 4 {
		a.mode = os.Args[4]
	}
	if markers := number(os.Args[3]); markers > 0 {
		runtime.GOMAXPROCS(markers)
	}
	a.began, a.beganCPU = time.Now(), nowCPU()
	return a
}

// Of the processors, all threads together.
func nowCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail(err.Error())
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func result(metric string, value float64) {
	fmt.Printf("%s %.9g\n", metric, value)
}

func checksum(value uint64) {
	result("checksum", float64(value&(1<<29-1)))
}

func statusKiB(key string) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fail(err.Error())
	}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key {
			return float64(number(fields[1]))
		}
	}
	return -1
}

func peakReset() {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		fail(err.Error())
	}
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / 1e6
}

// paused and longest: the world stood still. That is the least of what a cycle of Go's costs.
func report(a arguments) {
	result("ms", milliseconds(time.Since(a.began)))
	result("cpu", milliseconds(nowCPU()-a.beganCPU))
	result("peak", statusKiB("VmHWM:")/1024)
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	var longest time.Duration
	for _, pause := range stats.Pause {
		if pause > longest {
			longest = pause
		}
	}
	result("cycles", float64(stats.NumGC))
	result("paused", milliseconds(stats.PauseTotal))
	result("longest", milliseconds(longest))
}

func collecting(on bool) {
	percent := -1
	if on {
		percent = 100
	}
	debug.SetGCPercent(percent)
}

type random uint64

func seed(index uint64) random {
	return random(uint64(88172645463325252) ^ (index+1)*0x9e3779b97f4a7c15)
}

func (r *random) next() uint64 {
	*r ^= *r << 13
	*r ^= *r >> 7
	*r ^= *r << 17
	return uint64(*r)
}

func (r *random) below(limit int) int {
	return int(r.next() >> 32 * uint64(limit) >> 32)
}

func log2(value int) int {
	return bits.Len(uint(value)) - 1
}
