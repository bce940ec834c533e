package jobqueue

import (
	"sync"
	"time"
)

// redisClock estimates Redis's clock between two looks at it, by the monotonic clock of this process.
type redisClock struct {
	mu   sync.Mutex
	at   time.Time // when the latest answer arrived here
	time int64     // what it said, in µs
}

func (c *redisClock) learn(arrived time.Time, redisTime int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if arrived.After(c.at) {
		c.at, c.time = arrived, redisTime
	}
}

// now returns a time that Redis's clock has surely reached (as far as the two clocks run at one speed), in µs, and how
// old the latest look is. Zero while nothing is known.
func (c *redisClock) now() (redisTime int64, age time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return 0, 1<<63 - 1
	}
	age = time.Since(c.at)
	return c.time + age.Microseconds(), age
}
