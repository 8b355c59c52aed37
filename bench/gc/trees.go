// SPDX-License-Identifier: MIT

// Binary trees: see trees.c.
package main

const smallest, step = 4, 2

type node struct{ left, right *node }

func grow(depth int) *node {
	self := &node{}
	if depth > 0 {
		self.left = grow(depth - 1)
		self.right = grow(depth - 1)
	}
	return self
}

func (n *node) count() uint64 {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

func main() {
	a := begin()
	sum := grow(a.size + 1).count()
	large := grow(a.size)
	for depth := smallest; depth <= a.size; depth += step {
		for i := 0; i < 1<<(a.size-depth+smallest); i++ {
			sum += grow(depth).count()
		}
	}
	checksum(sum + large.count())
	report(a)
}
