package partition

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// A Wish is a key that somebody needs rendered.
type Wish struct {
	Key string

	// Token identifies the claim, so that a claim that is sent twice is granted once.
	Token string

	// Need is "" for a new wish, else the ticket of the Busy answer to an earlier one.
	Need string

	Cause Cause
}

// A Cause is what a key is rendered or written for.
type Cause struct {
	Job string // the id of the job, "" if there is none
	Why string // "target", "group tracks"; never parsed
}

// text returns the cause as it is in Redis.
func (c Cause) text() string {
	return jobOf(c.Job) + " " + c.Why
}

func parseCause(text string) Cause {
	job, why, _ := strings.Cut(text, " ")
	if job == "-" {
		job = ""
	}
	return Cause{job, why}
}

// Granted says what came of a wish.
type Granted string

// What came of a wish; see claimScript.
const (
	Claimed Granted = "claimed"
	Busy    Granted = "busy"
	Done    Granted = "done"
	Failed  Granted = "failed"
	Pushed  Granted = "pushed"
)

// A Claim is the answer to a wish.
type Claim struct {
	Granted Granted
	Position
	Detail string
	Tail   string // the last id of the change log at that moment
}

// Claim asks for the right to render a key.
func (p *Partition) Claim(ctx context.Context, wish Wish) (Claim, error) {
	return p.claims.Do(ctx, wish)
}

// ClaimAll is Claim for several keys of the partition that leave together.
func (p *Partition) ClaimAll(ctx context.Context, wishes []Wish) ([]Claim, []error) {
	return p.claims.DoAll(ctx, wishes)
}

func (p *Partition) sendClaims(wishes []Wish) ([]Claim, error) {
	ctx, cancel := p.background()
	defer cancel()
	keys := []string{p.names.pending, p.names.running, p.names.claims, p.names.failing, p.names.log, p.names.wanted}
	args := []any{p.lease()}
	for _, wish := range wishes {
		keys = append(keys, p.entry(wish.Key))
		args = append(args, wish.Key, wish.Token, wish.Need, wish.Cause.text())
	}
	reply, err := p.run(ctx, p.store.scripts.claim, keys, args...)
	if err != nil {
		return nil, err
	}
	if len(reply) != 2+3*len(wishes) {
		return nil, fmt.Errorf("claim script: %d values for %d wishes", len(reply), len(wishes))
	}
	p.memory.note(text(reply[0]), text(reply[1]))
	claims := make([]Claim, len(wishes))
	for i := range claims {
		granted := reply[2+3*i:]
		claims[i] = Claim{
			Granted:  Granted(text(granted[0])),
			Position: Position{text(reply[0]), text(granted[1])},
			Detail:   text(granted[2]),
			Tail:     text(reply[1]),
		}
		if claims[i].Granted == Claimed || claims[i].Granted == Busy {
			p.learn(claims[i].Incarnation, claims[i].Ticket)
		}
	}
	return claims, nil
}

func (p *Partition) lease() string {
	return strconv.FormatInt(p.store.config.ClaimLease.Microseconds(), 10)
}

// A Due is a key that was claimed for the caller.
type Due struct {
	Key string
	Position
	Cause Cause
}

// A Held is a claim as Redis has it.
type Held struct {
	Due
	Token string
}

// A Round is what is to be done in a partition.
type Round struct {
	Due   []Due  // pending keys that were claimed for the caller
	Mine  []Held // claims that the process had before, if it was asked for them
	Walks int    // groups that have changed and whose members are made pending little by little

	// Unsure is set where Redis has lost writes that it had acknowledged. Lost are the keys that this process has written,
	// and whose writes are among them, LostGroups the groups that it has marked.
	Unsure     bool
	Lost       []string
	LostGroups []string
}

// Next claims up to n pending keys that are due, and puts keys back whose claim has expired. If look is set, it also
// returns the claims that the process had before: those whose token begins like this one, up to and with the last '-'.
func (p *Partition) Next(ctx context.Context, token string, n int, look bool) (round Round, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.store.config.Timeout)
	defer cancel()
	flag := ""
	if look {
		flag = "1"
	}
	keys := []string{p.names.pending, p.names.running, p.names.claims, p.names.failing, p.names.walks, p.names.wanted, p.names.log}
	incarnation, known := p.memory.known()
	reply, err := p.run(ctx, p.store.scripts.next, keys, p.lease(), token, n, flag, strings.Join(known, " "), incarnation)
	if err != nil {
		return round, err
	}
	if len(reply) < 6 || len(reply)%4 != 2 {
		return round, fmt.Errorf("next script: %d values", len(reply))
	}
	claimed, _ := reply[2].(int64)
	walks, _ := reply[3].(int64)
	round.Walks = int(walks)
	p.learn(text(reply[0]), text(reply[1]))
	if survived := text(reply[5]); survived != "" {
		round.Unsure = true
		round.Lost, round.LostGroups = p.memory.after(survived)
	}
	p.memory.confirm(text(reply[0]), text(reply[4]), known, round.Unsure)
	for i := 6; i < len(reply); i += 4 {
		claim := Due{text(reply[i]), Position{text(reply[0]), text(reply[i+1])}, parseCause(text(reply[i+3]))}
		if int64(len(round.Due)) < claimed {
			round.Due = append(round.Due, claim)
		} else {
			round.Mine = append(round.Mine, Held{claim, text(reply[i+2])})
		}
	}
	return round, nil
}

// Renew prolongs the leases of claims that are still held.
func (p *Partition) Renew(ctx context.Context, held []Due) error {
	ctx, cancel := context.WithTimeout(ctx, p.store.config.Timeout)
	defer cancel()
	args := []any{p.lease()}
	for _, h := range held {
		args = append(args, h.Key, h.Ticket)
	}
	_, err := p.run(ctx, p.store.scripts.renew, []string{p.names.running, p.names.claims}, args...)
	return err
}

// Kind is the kind of an operation; see commitScript.
type Kind string

// The kinds of operations.
const (
	OpStore     Kind = "store"
	OpDestroy   Kind = "destroy"
	OpRefuse    Kind = "refuse"
	OpFail      Kind = "fail"
	OpPut       Kind = "put"
	OpDrop      Kind = "drop"
	OpPush      Kind = "push"
	OpRemove    Kind = "remove"
	OpOverwrite Kind = "overwrite"
	OpErase     Kind = "erase"
	OpPend      Kind = "pend"
)

// An Operation is one change of a commit.
type Operation struct {
	Kind Kind
	Key  string
	Position
	Value   string        // the encoded entry or tombstone; for OpFail the error
	Limited bool          // a request brought the key up: it counts against MaxEntries
	Delay   time.Duration // for OpFail and OpPend
	Groups  []string      // that the entry is in, each once; none has a tab
	Cause   Cause         // why the key is pending, for those kinds that make it so
}

// Outcome says what came of an operation; see commitScript.
type Outcome string

// The outcomes of operations.
const (
	Stored           Outcome = "stored"
	Destroyed        Outcome = "destroyed"
	Refused          Outcome = "refused"
	RenderFailed     Outcome = "failed"
	Pending          Outcome = "pending"
	Superseded       Outcome = "superseded"
	Unseen           Outcome = "unseen"
	AlreadyDone      Outcome = "done"
	Lost             Outcome = "lost"
	Full             Outcome = "full"
	WrongIncarnation Outcome = "incarnation"
	FutureTicket     Outcome = "future"
	OldTicket        Outcome = "old"
)

// Again reports whether the operation did not happen and is to be made again under a new ticket: the old one was refused,
// or what is there need not show what the operation shows.
func (o Outcome) Again() bool {
	return o == WrongIncarnation || o == FutureTicket || o == OldTicket || o == Unseen
}

// A Commit is what came of a group of operations.
type Commit struct {
	Outcomes []Outcome
	Tail     string // the last id of the change log after the commit
}

// What one commit may hold: Redis is busy with nothing else meanwhile, and refuses arguments beyond its own limits.
const (
	maxOperations  = 1000
	maxMemberships = 4000
	maxCommitBytes = 32 << 20

	// membershipWeight is what a membership weighs among the bytes of a round trip: a commit is as busy with it as with
	// so many.
	membershipWeight = 256
)

// Parts cuts operations into parts that are small enough for one commit each.
func Parts(operations []Operation) iter.Seq[[]Operation] {
	return func(yield func([]Operation) bool) {
		begin, bytes, memberships := 0, 0, 0
		for i := range operations {
			size, groups := len(operations[i].Value), len(operations[i].Groups)
			if i > begin && (i-begin >= maxOperations || bytes+size > maxCommitBytes || memberships+groups > maxMemberships) {
				if !yield(operations[begin:i]) {
					return
				}
				begin, bytes, memberships = i, 0, 0
			}
			bytes, memberships = bytes+size, memberships+groups
		}
		if begin < len(operations) {
			yield(operations[begin:])
		}
	}
}

// Commit performs the operations in one atomic step: all of them, or none where the ticket of one is refused.
func (p *Partition) Commit(ctx context.Context, operations []Operation) (Commit, error) {
	return p.commits.Do(ctx, operations)
}

func (p *Partition) sendCommits(groups [][]Operation) ([]Commit, error) {
	// A commit may carry many megabytes; giving it up too early would mean to send them again and again.
	ctx, cancel := context.WithTimeout(context.Background(), 10*p.store.config.Timeout)
	defer cancel()
	config := &p.store.config
	keys := []string{
		p.names.index, p.names.pending, p.names.running, p.names.claims, p.names.failing, p.names.log,
		p.names.groups, p.names.memberships, p.names.marks, p.names.wanted,
	}
	args := []any{config.TombstoneLife.Microseconds(), config.LogLength, config.MaxEntries, len(groups)}
	total := 0
	for _, group := range groups {
		args = append(args, len(group))
		total += len(group)
		for i := range group {
			op := &group[i]
			limited := ""
			if op.Limited {
				limited = "1"
			}
			keys = append(keys, p.entry(op.Key))
			args = append(args, string(op.Kind), op.Key, op.Ticket, op.Incarnation, op.Value, limited, op.Delay.Microseconds(), joinGroups(op.Groups), op.Cause.text())
		}
	}
	reply, err := p.run(ctx, p.store.scripts.commit, keys, args...)
	if err != nil {
		return nil, err
	}
	if len(reply) != 2+total {
		return nil, fmt.Errorf("commit script: %d values for %d operations", len(reply), total)
	}
	commits := make([]Commit, len(groups))
	at := 2
	for _, group := range groups {
		w := written{keys: make([]string, len(group))}
		for i := range group {
			w.keys[i] = strings.Clone(group[i].Key) // it may be a part of a whole request
		}
		p.memory.write(text(reply[0]), text(reply[1]), w)
	}
	for i, group := range groups {
		commits[i].Tail = text(reply[1])
		for range group {
			commits[i].Outcomes = append(commits[i].Outcomes, Outcome(text(reply[at])))
			at++
		}
	}
	return commits, nil
}
