// SPDX-License-Identifier: MIT

// Gaps while a tree is changed at random: see pauses.c.
package main

import (
	"fmt"
	"sort"
	"time"
)

const churn, bucketCount = 3, 16
const least = 50 * time.Microsecond

var root *graphNode

func grow(depth int) *graphNode {
	self := &graphNode{}
	self.payload[0] = uintptr(depth)
	if depth > 0 {
		self.child[0] = grow(depth - 1)
		self.child[1] = grow(depth - 1)
	}
	return self
}

func replace(path uint64, down int) {
	at := root
	for ; down > 1; down-- {
		at = at.child[path&1]
		path >>= 1
	}
	at.child[path&1] = grow(churn)
}

func reportGaps(gaps []time.Duration) {
	var buckets [bucketCount]int
	total, longest, late := time.Duration(0), time.Duration(0), time.Duration(0)
	sort.Slice(gaps, func(i, j int) bool { return gaps[i] < gaps[j] })
	for _, gap := range gaps {
		bucket := 0
		for limit := 2 * least; gap >= limit && bucket < bucketCount-1; limit *= 2 {
			bucket++
		}
		buckets[bucket]++
		total += gap
	}
	if len(gaps) > 0 {
		longest, late = gaps[len(gaps)-1], gaps[len(gaps)*99/100]
	}
	result("gaps", float64(len(gaps)))
	result("gap", milliseconds(longest))
	result("gap99", milliseconds(late))
	result("gap_total", milliseconds(total))
	for i, count := range buckets {
		result(fmt.Sprintf("bucket%d", i), float64(count))
	}
}

func main() {
	a := begin()
	r := seed(2)
	gaps := make([]time.Duration, 0, 1<<20)
	levels := log2(a.size)
	if levels <= churn+2 {
		fail("SIZE is too small")
	}
	root = graphBuild(a.size-1, "tree")
	peakReset()
	a.began, a.beganCPU = time.Now(), nowCPU()
	last := a.began
	for i := 0; i < a.size/5; i++ {
		replace(r.next()>>32, levels-1-churn)
		now := time.Now()
		if gap := now.Sub(last); gap > least && len(gaps) < cap(gaps) {
			gaps = append(gaps, gap)
		}
		last = now
	}
	report(a)
	reportGaps(gaps)
}
