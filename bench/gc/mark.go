// SPDX-License-Identifier: MIT

// The cost of a whole collection: see mark.c. runtime.GC also sweeps. One is measured, since it takes long.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

var root *graphNode

func main() {
	a := begin()
	before := statusKiB("VmRSS:")
	root = graphBuild(a.size, a.mode)
	debug.FreeOSMemory() // which also collects
	peakReset()
	began, beganCPU := time.Now(), nowCPU()
	runtime.GC()
	ns := float64(time.Since(began)) / float64(a.size)
	result("cpu", float64(nowCPU()-beganCPU)/float64(a.size))
	result("space", (statusKiB("VmRSS:")-before)*1024/(32*float64(a.size)))
	result("peak", statusKiB("VmHWM:")/1024)
	result("ns", ns)
	if root.payload[0] > uintptr(a.size) {
		os.Exit(1)
	}
}
