//go:build !race

package main

// testCodings are the codings of pages in tests.
const testCodings = "br,zstd,gzip"
