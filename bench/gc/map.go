// SPDX-License-Identifier: MIT

// A hash map from strings to strings: see map.c. The same table, not Go's own map.
package main

import (
	"bytes"
	"strconv"
)

const times, valueLeast, valueSpread = 40, 16, 85

type entry struct {
	next  *entry
	key   []byte
	value []byte
	hash  uint64
}

var buckets []*entry
var mask uint64

func hashOf(key []byte) uint64 {
	hash := uint64(14695981039346656037)
	for _, b := range key {
		hash = (hash ^ uint64(b)) * 1099511628211
	}
	return hash ^ hash>>29
}

func find(key []byte, hash uint64) **entry {
	at := &buckets[hash&mask]
	for *at != nil && ((*at).hash != hash || !bytes.Equal((*at).key, key)) {
		at = &(*at).next
	}
	return at
}

func insert(at **entry, key []byte, hash uint64, length int) {
	made := &entry{key: make([]byte, len(key)), value: make([]byte, length), hash: hash}
	copy(made.key, key)
	for i := range made.value {
		made.value[i] = byte('a' + hash%26)
	}
	*at = made
}

func main() {
	a := begin()
	r := seed(0)
	found, entries := uint64(0), uint64(0)
	count := 1
	for count < a.size {
		count *= 2
	}
	buckets = make([]*entry, count)
	mask = uint64(count - 1)
	buffer := []byte("key number 00000000000000000000")[:11]
	for i := 0; i < times*a.size; i++ {
		key := strconv.AppendInt(buffer, int64(r.below(2*a.size)), 10)
		at := find(key, hashOf(key))
		if *at != nil {
			found += uint64(len((*at).value))
		}
		key = strconv.AppendInt(buffer, int64(r.below(2*a.size)), 10)
		hash := hashOf(key)
		length := valueLeast + r.below(valueSpread)
		at = find(key, hash)
		if *at == nil {
			insert(at, key, hash, length)
			entries++
		} else {
			*at = (*at).next
			entries--
		}
	}
	checksum(found + entries)
	report(a)
}
