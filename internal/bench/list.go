package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/jobqueue"
)

// callTimeout is how long a caller of either side waits for its reply.
const callTimeout = 10 * time.Second

// list is the yardstick: request/reply over a list and pub/sub, as one writes it by hand. A job is "id channel payload"
// in a list, a reply "id payload" in the channel of the process that asked. Nothing is kept: a job or a reply that is
// under way when a process dies is lost.
type list struct {
	rdb       redis.UniversalClient
	jobs      string // the list
	replies   string // the channel
	size      int    // how many consumers
	last      atomic.Uint64
	consumers sync.WaitGroup
	receiver  sync.WaitGroup
	stop      context.CancelFunc
	replied   *redis.PubSub
	failed    chan error // of consumers and receiver

	mu      sync.Mutex
	waiting map[string]chan string // by id
}

// newList starts consumers, each of which runs one job at a time.
func newList(ctx context.Context, rdb redis.UniversalClient, consumers int) (*list, error) {
	name := "bench:" + jobqueue.NewID()
	l := &list{
		rdb: rdb, jobs: name + ":jobs", replies: name + ":replies", size: consumers, failed: make(chan error, consumers+1),
		waiting: make(map[string]chan string),
	}
	l.replied = rdb.Subscribe(ctx, l.replies)
	if _, err := l.replied.Receive(ctx); err != nil { // replies are not kept: the subscription has to be there first
		return nil, errors.Join(err, l.replied.Close())
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.receiver.Go(func() { l.fail(ctx, l.receive(ctx)) })
	for range consumers {
		l.consumers.Go(func() { l.fail(ctx, l.consume(ctx)) })
	}
	return l, nil
}

func (l *list) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		l.failed <- err
	}
}

func (l *list) do(ctx context.Context, request string) (string, error) {
	id := strconv.FormatUint(l.last.Add(1), 10)
	reply := make(chan string, 1)
	l.mu.Lock()
	l.waiting[id] = reply
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, id)
	}()
	if err := l.rdb.LPush(ctx, l.jobs, id+" "+l.replies+" "+request).Err(); err != nil {
		return "", err
	}
	timer := time.NewTimer(callTimeout)
	defer timer.Stop()
	select {
	case r := <-reply:
		return r, nil
	case err := <-l.failed:
		return "", err
	case <-timer.C:
		return "", errors.New("no reply")
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// consume runs jobs.
func (l *list) consume(ctx context.Context) error {
	for {
		popped, err := l.rdb.BRPop(ctx, time.Second, l.jobs).Result()
		if errors.Is(err, redis.Nil) && ctx.Err() == nil {
			continue
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		id, rest, _ := strings.Cut(popped[1], " ")
		channel, request, ok := strings.Cut(rest, " ")
		if !ok {
			return fmt.Errorf("%q is no job", popped[1])
		}
		if err := l.rdb.Publish(ctx, channel, id+" "+answer(request)).Err(); err != nil {
			return err
		}
	}
}

// receive hands replies to the callers that wait for them.
func (l *list) receive(ctx context.Context) error {
	for {
		message, err := l.replied.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		id, reply, _ := strings.Cut(message.Payload, " ")
		l.mu.Lock()
		waiter := l.waiting[id]
		l.mu.Unlock()
		if waiter != nil {
			waiter <- reply
		}
	}
}

func (l *list) close(ctx context.Context) error {
	l.stop()
	err := l.replied.Close()
	l.receiver.Wait()
	wake := make([]any, l.size) // consumers block in Redis
	for i := range wake {
		wake[i] = ""
	}
	err = errors.Join(err, l.rdb.LPush(ctx, l.jobs, wake...).Err())
	l.consumers.Wait()
	return errors.Join(err, l.rdb.Del(ctx, l.jobs).Err())
}
