package render

import (
	"context"
	"sync"
	"time"

	"github.com/itscales/scales/internal/partition"
)

// tendInterval is how often a process looks for pending keys that nobody waits for.
const tendInterval = 500 * time.Millisecond

// adoptAfter is how long a claim may be ours in Redis without being held before it is taken in hand. What is granted to a
// call of ours is not held before the answer is here; for longer than that it was granted to a call that we gave up.
const adoptAfter = 500 * time.Millisecond

// Kick makes Tend look for pending keys now.
func (r *Renderer) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Tend renders pending keys that nobody waits for, until ctx ends: what crashed processes left, what failed, what
// programs asked for. It uses half of the slots, so that the renders of user writes go first. It returns when its last
// render is committed, or when patience ends.
func (r *Renderer) Tend(ctx, patience context.Context) {
	ticker := time.NewTicker(tendInterval)
	defer ticker.Stop()
	busy := make(chan struct{}, max(1, r.config.Limit/2))
	strays := make(map[partition.Due]time.Time)
	for round := 0; ; round++ {
		if r.tendOnce(ctx, busy, strays, round) {
			select { // there may be more: go on as soon as there is room
			case busy <- struct{}{}:
				<-busy
				continue
			case <-ctx.Done():
			}
		}
		select {
		case <-ticker.C:
		case <-r.kick:
		case <-ctx.Done():
			for range cap(busy) {
				select {
				case busy <- struct{}{}:
				case <-patience.Done():
					return
				}
			}
			return
		}
	}
}

// tendOnce claims as many due keys as there is room for, beginning with another partition in each round, and reports
// whether there may be more. strays are claims that are ours but not held, and since when.
func (r *Renderer) tendOnce(ctx context.Context, busy chan struct{}, strays map[partition.Due]time.Time, round int) (more bool) {
	if !r.enter() {
		return false
	}
	defer r.work.Done()
	partitions := r.config.Store.All()
	for i := range partitions {
		if ctx.Err() != nil {
			return false
		}
		p := partitions[(i+round)%len(partitions)]
		// What could not begin to be rendered at once is left to others.
		free := max(0, min(cap(busy)-len(busy), cap(r.slots)-len(r.slots)))
		due, mine, err := p.Next(ctx, r.nextToken(), free)
		if err != nil {
			r.config.Logger.Debug("scales: pending keys could not be read", "error", err)
			return false
		}
		if !r.config.Guards.NoAdoption {
			due = append(due, r.adopt(p, mine, strays)...)
		}
		for _, d := range due {
			busy <- struct{}{}
			r.work.Go(func() {
				defer func() { <-busy }()
				r.renderDue(p, d)
			})
		}
		more = more || len(due) > 0 && len(due) >= free
	}
	return more
}

// adopt returns those of our claims of a partition that have strayed for long enough to be taken in hand.
//
//	we: claim k; no answer in time; Redis has only been slow to read it
//	we: claim k again; granted; we render and commit
//	Redis: carries the first call out: k is claimed, for nobody, until its lease ends
func (r *Renderer) adopt(p *partition.Partition, mine []partition.Due, strays map[partition.Due]time.Time) (adopted []partition.Due) {
	now := time.Now()
	seen := make(map[partition.Due]bool, len(mine))
	for _, claim := range mine {
		if r.holds(claim) {
			continue
		}
		seen[claim] = true
		since, ok := strays[claim]
		if !ok {
			strays[claim] = now
		} else if now.Sub(since) >= min(adoptAfter, r.config.Lease/4) {
			adopted = append(adopted, claim)
		}
	}
	for claim := range strays {
		if r.config.Store.Of(claim.Key) == p && !seen[claim] {
			delete(strays, claim)
		}
	}
	for _, claim := range adopted {
		delete(strays, claim)
	}
	return adopted
}

// renderDue renders a key that was claimed. Where its ticket is refused, the key is made pending again.
func (r *Renderer) renderDue(p *partition.Partition, due partition.Due) {
	operations, results := r.askAll(p, []partition.Due{due})
	commit, err := r.commit(p, operations)
	r.release(operations[0])
	r.pause(AfterCommit, due.Key)
	switch {
	case err != nil:
	case commit.Outcomes[0].Again():
		_, _ = r.commit(p, []partition.Operation{{Kind: partition.OpPend, Key: due.Key}})
	default:
		r.conclude(results[0], commit.Outcomes[0])
	}
}

// held are the claims that this process holds. While there are any, their leases are prolonged.
type held struct {
	mu      sync.Mutex
	claims  map[partition.Due]heldClaim
	running bool
}

type heldClaim struct {
	partition *partition.Partition
	since     time.Time
}

func (r *Renderer) hold(p *partition.Partition, due partition.Due) {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	r.held.claims[due] = heldClaim{p, time.Now()}
	if !r.held.running && r.stopped.Err() == nil {
		r.held.running = true
		r.work.Go(r.renew)
	}
}

func (r *Renderer) holds(due partition.Due) bool {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	_, ok := r.held.claims[due]
	return ok
}

func (r *Renderer) release(op partition.Operation) {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	delete(r.held.claims, partition.Due{Key: op.Key, Position: op.Position})
}

// renew prolongs leases until no claim is held. Most renders are over before it looks for the first time.
func (r *Renderer) renew() {
	ticker := time.NewTicker(r.config.Lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-r.stopped.Done():
			return
		}
		old := make(map[*partition.Partition][]partition.Due)
		r.held.mu.Lock()
		if len(r.held.claims) == 0 {
			r.held.running = false
			r.held.mu.Unlock()
			return
		}
		for due, claim := range r.held.claims {
			if time.Since(claim.since) > r.config.Lease/4 {
				old[claim.partition] = append(old[claim.partition], due)
			}
		}
		r.held.mu.Unlock()
		for p, claims := range old {
			if err := p.Renew(r.stopped, claims); err != nil {
				r.config.Logger.Warn("scales: leases of renders could not be prolonged", "error", err)
			}
		}
	}
}
