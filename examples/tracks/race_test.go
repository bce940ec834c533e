//go:build race

package main

// testCodings are the codings of pages in tests. With the race detector they take a hundred times as long.
const testCodings = ""
