// SPDX-License-Identifier: MIT

// Graphs of nodes of four words: see graph.h.
package main

type graphNode struct {
	child   [2]*graphNode
	payload [2]uintptr
}

type graphBuilder struct {
	place []uint32
	nodes []*graphNode
}

func (b *graphBuilder) number(i int, next uint32) uint32 {
	if i >= len(b.place) {
		return next
	}
	b.place[i] = next
	next = b.number(2*i+1, next+1)
	return b.number(2*i+2, next)
}

func (b *graphBuilder) at(i int) *graphNode {
	if i < len(b.place) {
		return b.nodes[b.place[i]]
	}
	return nil
}

func (b *graphBuilder) linkTree() {
	for i := range b.nodes {
		b.at(i).child[0] = b.at(2*i + 1)
		b.at(i).child[1] = b.at(2*i + 2)
	}
}

func (b *graphBuilder) linkAny(r *random) {
	for i := 1; i < len(b.nodes); i++ {
		parent := b.at(r.below(i))
		for parent.child[1] != nil {
			parent = b.at(r.below(i))
		}
		k := 0
		if parent.child[0] != nil {
			k = 1
		}
		parent.child[k] = b.at(i)
	}
	for i := range b.nodes {
		for k := range b.at(i).child {
			if b.at(i).child[k] == nil {
				b.at(i).child[k] = b.at(r.below(len(b.nodes)))
			}
		}
	}
}

func graphBuild(count int, kind string) *graphNode {
	r := seed(0)
	b := graphBuilder{make([]uint32, count), make([]*graphNode, count)}
	collecting(false)
	for i := range b.nodes {
		b.nodes[i] = &graphNode{}
		b.nodes[i].payload[0] = uintptr(i)
		b.place[i] = uint32(i)
	}
	switch kind {
	case "depth":
		b.number(0, 0)
	case "tree", "graph":
		for i := count - 1; i > 0; i-- {
			j := r.below(i + 1)
			b.place[i], b.place[j] = b.place[j], b.place[i]
		}
	}
	if kind == "graph" {
		b.linkAny(&r)
	} else {
		b.linkTree()
	}
	root := b.at(0)
	collecting(true)
	return root
}
