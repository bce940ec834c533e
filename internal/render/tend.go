package render

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/itscales/scales/internal/partition"
)

// tendInterval is how often a process looks for pending keys that nobody waits for.
const tendInterval = 500 * time.Millisecond

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
	strays := make(map[partition.Held]bool)
	look := true
	for round := 0; ; round++ {
		more := r.tendOnce(ctx, busy, strays, look, round)
		look = false
		if more {
			select { // there may be more: go on as soon as there is room
			case busy <- struct{}{}:
				<-busy
				continue
			case <-ctx.Done():
			}
		}
		select {
		case <-ticker.C:
			look = true
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
// whether there may be more. With look, it also takes strays in hand.
func (r *Renderer) tendOnce(ctx context.Context, busy chan struct{}, strays map[partition.Held]bool, look bool, round int) (more bool) {
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
		free := max(0, min(cap(busy)-len(busy), r.slots.idle()))
		token := r.asking()
		next, err := p.Next(ctx, token, free, look)
		due := next.Due
		if look && err == nil && !r.config.Guards.NoAdoption {
			due = append(due, r.adopt(p, next.Mine, strays, free-len(due))...)
		}
		for _, d := range due {
			r.hold(p, d)
		}
		r.asked(token)
		if err != nil {
			r.config.Logger.Debug("scales: pending keys could not be read", "error", err)
			return false
		}
		if next.Unsure {
			r.recover(ctx, p, next)
		}
		for _, d := range due {
			busy <- struct{}{}
			r.work.Go(func() {
				defer func() { <-busy }()
				r.renderDue(p, d)
			})
		}
		more = more || len(due) > 0 && len(due) >= free
		if next.Walks > 0 && len(due) < free {
			more = r.walk(ctx, p) || more
		}
	}
	return more
}

// recover has rendered again what this process has written and Redis has lost.
func (r *Renderer) recover(ctx context.Context, p *partition.Partition, round partition.Round) {
	lost := round.Lost
	r.config.Logger.Error("scales: Redis has lost writes that it had acknowledged; misses are answered 503 until a verify or a fill has ended",
		"partition", p.Number, "keys", len(lost), "groups", len(round.LostGroups))
	operations := make([]partition.Operation, len(lost))
	for i, key := range lost {
		operations[i] = partition.Operation{Kind: partition.OpPend, Key: key, Cause: partition.Cause{Why: "lost"}}
	}
	for part := range partition.Parts(operations) {
		_ = r.insist(ctx, func() error {
			_, err := p.Commit(ctx, part)
			return err
		})
	}
	for groups := range slices.Chunk(round.LostGroups, partition.GroupsAtOnce) {
		_ = r.insist(ctx, func() error {
			_, err := p.Mark(ctx, groups, 0, "")
			return err
		})
	}
}

// walk makes further members of a group that has changed pending, when those before are being rendered. It reports whether
// there may be more to do.
func (r *Renderer) walk(ctx context.Context, p *partition.Partition) bool {
	step := min(4*r.config.Limit, 256)
	walked, err := p.Walk(ctx, step, step)
	if err != nil {
		r.config.Logger.Debug("scales: the members of a group could not be walked", "error", err)
	}
	return walked
}

// adopt returns up to room of our claims of a partition that have strayed: nothing holds them, and no call asks for them.
// A claim has to be seen twice: what the first answer shows may have come to its end while that was on its way.
//
//	we: claim k; no answer in time; Redis has only been slow to read it
//	we: claim k again; granted; we render and commit
//	Redis: carries the first call out: k is claimed, for nobody, until its lease ends
//
// strays are what was seen once, of all partitions.
func (r *Renderer) adopt(p *partition.Partition, mine []partition.Held, strays map[partition.Held]bool, room int) (adopted []partition.Due) {
	seen := make(map[partition.Held]bool, len(mine))
	for _, claim := range mine {
		switch {
		case r.knows(claim):
		case strays[claim] && len(adopted) < room:
			adopted = append(adopted, claim.Due)
		default:
			seen[claim] = true
		}
	}
	for claim := range strays {
		if r.config.Store.Of(claim.Key) == p {
			delete(strays, claim)
		}
	}
	maps.Copy(strays, seen)
	return adopted
}

// renderDue renders a key that was claimed. Where its ticket is refused, the key is made pending again.
func (r *Renderer) renderDue(p *partition.Partition, due partition.Due) {
	op, result := r.askOne(due, behind)
	op.Limited = true // nobody knows who brought the key up
	commit, err := r.commit(p, []partition.Operation{op})
	r.release(op)
	r.pause(AfterCommit, due.Key)
	switch {
	case err != nil:
	case commit.Outcomes[0].Again():
		_, _ = r.commit(p, []partition.Operation{{Kind: partition.OpPend, Key: due.Key, Cause: due.Cause}})
	default:
		r.conclude(result, commit.Outcomes[0])
	}
}

// held are the claims that this process holds. While there are any, their leases are prolonged.
type held struct {
	mu      sync.Mutex
	claims  map[place]heldClaim
	asking  map[string]bool // tokens of calls whose answer may still come
	running bool
}

// place is what tells a claim from all others.
type place struct {
	key string
	partition.Position
}

type heldClaim struct {
	partition *partition.Partition
	due       partition.Due
	since     time.Time
}

func (r *Renderer) hold(p *partition.Partition, due partition.Due) {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	r.held.claims[place{due.Key, due.Position}] = heldClaim{p, due, time.Now()}
	if !r.held.running && r.stopped.Err() == nil {
		r.held.running = true
		r.work.Go(r.renew)
	}
}

// asking names a claim, so that one that is sent twice is granted once, and notes that calls ask for claims with it, until asked.
func (r *Renderer) asking() (token string) {
	token = r.token + "-" + strconv.FormatUint(r.claims.Add(1), 36)
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	r.held.asking[token] = true
	return token
}

// asked notes that no call asks with the token any more: what was granted is held.
func (r *Renderer) asked(token string) {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	delete(r.held.asking, token)
}

// knows reports whether a claim of this process is held, or is being asked for.
func (r *Renderer) knows(claim partition.Held) bool {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	_, ok := r.held.claims[place{claim.Key, claim.Position}]
	return ok || r.held.asking[claim.Token]
}

func (r *Renderer) release(op partition.Operation) {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	delete(r.held.claims, place{op.Key, op.Position})
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
		for _, claim := range r.held.claims {
			if time.Since(claim.since) > r.config.Lease/4 {
				old[claim.partition] = append(old[claim.partition], claim.due)
			}
		}
		r.held.mu.Unlock()
		each(slices.Collect(maps.Keys(old)), func(p *partition.Partition) { // one that hangs does not keep the others waiting
			if err := p.Renew(r.stopped, old[p]); err != nil {
				r.config.Logger.Warn("scales: leases of renders could not be prolonged", "error", err)
			}
		})
	}
}
