package partition

// EntryName returns the name of the Redis key that holds the entry of a key.
func (p *Partition) EntryName(key string) string { return p.entry(key) }
