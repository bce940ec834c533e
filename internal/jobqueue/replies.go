package jobqueue

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// register makes a caller known, before its job is enqueued.
func (p *Producer) register(id string) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	w := &waiter{outcomes: make(chan outcome, 1), taken: make(chan struct{})}
	p.waiting[id] = w
	p.start()
	return w, nil
}

// start begins to read replies, and to say that the server lives. It is called with mu held.
func (p *Producer) start() {
	if p.reading || p.closed {
		return
	}
	p.reading = true
	ctx, cancel := context.WithCancel(context.Background())
	p.wake = cancel
	p.readers.Add(1)
	go p.readReplies(ctx)
}

// Start has the producer say that its server lives, until it is closed. The first job does that, too.
func (p *Producer) Start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start()
}

// tell hands the outcome of a job to who waits for it, once. The caller holds mu.
func (p *Producer) tell(id string, o outcome) {
	if w, ok := p.waiting[id]; ok {
		delete(p.waiting, id)
		w.outcomes <- o
	}
}

func (p *Producer) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
	p.noteDrained()
}

// noteDrained is called with mu held whenever a waiter has gone or the producer was closed.
func (p *Producer) noteDrained() {
	if !p.closed || len(p.waiting) > 0 {
		return
	}
	select {
	case <-p.drained:
	default:
		close(p.drained)
	}
}

// Waiting returns the number of callers that wait for a reply.
func (p *Producer) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// readReplies hands replies to their waiters until the producer is closed.
func (p *Producer) readReplies(ctx context.Context) {
	defer p.readers.Done()
	// What does not arrive in time is asked for again in smaller pieces: replies may have many megabytes.
	count := int64(readCount)
	for ctx.Err() == nil {
		p.mu.Lock()
		read := p.read
		p.mu.Unlock()
		// go-redis waits for the answer to a blocking call for ten seconds longer than that may take.
		bounded, cancel := context.WithTimeout(ctx, readBlock+p.config.Timeout)
		streams, err := p.config.Client.XRead(bounded, &redis.XReadArgs{
			Streams: []string{p.keys.replies, read}, Count: count, Block: readBlock,
		}).Result()
		cancel()
		for _, stream := range streams {
			p.deliver(stream.Messages)
		}
		if err == nil || ctx.Err() != nil {
			count = min(2*count, readCount)
			continue // whoever gets replies has looked lately
		}
		if !errors.Is(err, redis.Nil) {
			count = max(1, count/8)
			select {
			case <-ctx.Done():
			case <-time.After(readBlock / 10):
			}
		}
		if p.Waiting() > 0 || p.unseen() {
			_, _ = p.look(ctx, p.config.Timeout) // notices that Redis has lost everything
		}
	}
}

// unseen reports whether it is time to say that the server lives.
func (p *Producer) unseen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.lookedAt) >= presence && time.Since(p.triedAt) >= presence
}

// deliver hands records of replies to those who wait for them.
func (p *Producer) deliver(messages []redis.XMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, message := range messages {
		p.read = message.ID
		for id, record := range message.Values {
			record := text(record)
			if first, ok := strings.CutPrefix(record, "="); ok { // the same as that of another caller
				record = text(message.Values[first])
			}
			if p.answered.again(id, message.ID) {
				p.config.Logger.Error("scales: a job is answered once more: Redis has lost that it had ended, and it may have been carried out again", "job", id)
			}
			if _, waits := p.waiting[id]; waits {
				p.answered.note(id, message.ID)
				p.tell(id, outcome{reply: parseReply(record)})
			}
		}
	}
}

// Close stops the producer: further jobs are refused with ErrClosed. It waits for those under way until ctx ends.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.noteDrained()
	reading, wake := p.reading, p.wake
	p.mu.Unlock()
	if !reading {
		p.endDoubts()
		return nil
	}
	var err error
	select {
	case <-p.drained:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	wake()
	p.mu.Lock()
	p.endDoubts()
	p.mu.Unlock()
	p.resolving.Wait()
	// The reader blocks in Redis: an empty record wakes it, and the stream goes with us.
	timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.Timeout)
	defer cancel()
	_ = p.config.Client.XAdd(timeout, &redis.XAddArgs{Stream: p.keys.replies, Values: []string{"", ""}}).Err()
	p.readers.Wait()
	_ = p.config.Client.Del(timeout, p.keys.replies).Err() // it expires by itself where this fails
	_ = p.config.Client.ZRem(timeout, p.keys.servers, p.server).Err()
	return err
}
