package scales

import (
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/localcopy"
)

// CopyGuards switches safeguards of the local copy, and of reads from replicas, off.
func CopyGuards(g localcopy.Guards) ReadOption {
	return readOption(func(c *readConfig) { c.guards = g })
}

// QueueGuards switches safeguards of the queue off.
func QueueGuards(g jobqueue.Guards) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.queueGuards = g })
}
