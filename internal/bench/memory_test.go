package main

import "testing"

func TestMemoryOfAFewEntriesIsCounted(t *testing.T) {
	runs(t, "-run memory -entries 3000",
		`in Redis +\d+\.\d bytes`, `in a copy +\d+\.\d bytes`, `  index +\d+\.\d `, `  groups +\d+\.\d `, `  log +\d+\.\d `, `  SET +\d+\.\d `,
		`figure memory_redis_overhead \d+ \(goal at most 600\)$`, `figure memory_local_overhead \d+ \(goal at most 250\)$`, `figure memory_local_overhead_beyond_body \d+$`)
}

func TestAFillOfAFewEntriesIsCompared(t *testing.T) {
	runs(t, "-run fill -entries 2000 -rounds 1", `figure fill_vs_plain_set \d+\.\d{3}$`)
}
