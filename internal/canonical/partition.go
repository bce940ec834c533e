package canonical

import "hash/crc32"

// Partition returns the partition, 0 to partitions-1, in which a key lives: the
// CRC-32 of the key's bytes (IEEE polynomial, as in zip and gzip) modulo the
// number of partitions. What is stored depends on it, so it never changes.
func Partition(key string, partitions int) int {
	if partitions <= 1 {
		return 0
	}
	// crc32.ChecksumIEEE wants bytes, and would have the key copied to the heap.
	checksum := ^uint32(0)
	for i := range len(key) {
		checksum = crc32.IEEETable[byte(checksum)^key[i]] ^ checksum>>8
	}
	return int(^checksum % uint32(partitions))
}
