// SPDX-License-Identifier: MIT

// GCBench: see gcbench.c.
package main

const smallest, step, length = 4, 2, 500000

type node struct {
	left, right *node
	i, j        int32
}

var large *node
var array []float64

// What is made must outlive the function that makes it, or the compiler puts it on the stack.
var sink [64 * 8]*node

func populate(n *node, depth int) {
	if depth == 0 {
		return
	}
	n.left, n.right = &node{}, &node{}
	populate(n.left, depth-1)
	populate(n.right, depth-1)
}

func grow(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	left := grow(depth - 1)
	return &node{left: left, right: grow(depth - 1)}
}

func (n *node) count() uint64 {
	if n == nil {
		return 0
	}
	return 1 + n.left.count() + n.right.count()
}

func nodesOf(depth int) int {
	return 2<<depth - 1
}

func build(size int, index int) uint64 {
	made := uint64(0)
	kept := &sink[8*index] // a cache line for each thread
	for depth := smallest; depth <= size; depth += step {
		for i := 0; i < 2*nodesOf(size+2)/nodesOf(depth); i++ {
			*kept = &node{}
			populate(*kept, depth)
			*kept = grow(depth)
			made++
		}
	}
	*kept = nil
	return made
}

func main() {
	a := begin()
	sink[0] = grow(a.size + 2)
	sink[0] = nil
	large = &node{}
	populate(large, a.size)
	array = make([]float64, length)
	for i := range array {
		array[i] = 1 / float64(i+1)
	}
	sums := make(chan uint64)
	for i := 0; i < a.threads; i++ {
		go func(index int) { sums <- build(a.size, index) }(i)
	}
	sum := uint64(0)
	for i := 0; i < a.threads; i++ {
		sum += <-sums
	}
	if array[1000] != 1.0/1001 {
		fail("the array was overwritten")
	}
	checksum(sum + large.count())
	report(a)
}
