// SPDX-License-Identifier: MIT

// A long-lived tree with churn: see quads.c.
package main

const churn, times = 4, 4

type node struct{ child [4]*node }

var root *node

func grow(depth int) *node {
	self := &node{}
	if depth > 0 {
		for i := range self.child {
			self.child[i] = grow(depth - 1)
		}
	}
	return self
}

func (n *node) count() uint64 {
	sum := uint64(1)
	if n.child[0] != nil {
		for _, child := range n.child {
			sum += child.count()
		}
	}
	return sum
}

func main() {
	a := begin()
	r := seed(0)
	if a.size <= churn {
		fail("SIZE is too small")
	}
	root = grow(a.size)
	subtrees := 1 << (2 * (a.size - churn))
	for i := 0; i < times*subtrees; i++ {
		at, path := root, r.below(subtrees)
		for down := a.size - churn; down > 1; down-- {
			at = at.child[path&3]
			path >>= 2
		}
		at.child[path&3] = nil
		at.child[path&3] = grow(churn)
	}
	checksum(root.count())
	report(a)
}
