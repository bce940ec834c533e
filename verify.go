package scales

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/itscales/scales/internal/audit"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// A DriftKind is a way in which the cache can differ from the application.
type DriftKind string

// The kinds of what a Verify finds. The first three are drift: the cache serves something else than the application
// answers.
const (
	Missing      DriftKind = "missing"      // the application answers with a page, the cache has none
	Stale        DriftKind = "stale"        // the cache has another page, or has it in other groups
	Orphaned     DriftKind = "orphaned"     // the cache has a page, the application answers that there is none to be stored
	Unrenderable DriftKind = "unrenderable" // the application gave nothing usable, so nobody can say
	Unsettled    DriftKind = "unsettled"    // within VerifyPatience there was always a write that may explain the difference
	NotStorable  DriftKind = "refused"      // the application's answer must not be stored, and the cache has none
)

// lookAgain is the time between two looks of a Verify at a difference.
const lookAgain = 50 * time.Millisecond

// Drift reports whether what was found is a difference that nothing explains.
func (k DriftKind) Drift() bool { return k == Missing || k == Stale || k == Orphaned }

// A VerifyState is how far a Verify has come.
type VerifyState struct {
	Keys         int `json:"keys"`    // looked at; each counts once, below one of the following
	Current      int `json:"current"` // cache and application agree, or agree that there is nothing
	Pushed       int `json:"pushed"`  // push-only entries, which cannot be compared
	Missing      int `json:"missing"`
	Stale        int `json:"stale"`
	Orphaned     int `json:"orphaned"`
	Unrenderable int `json:"unrenderable"`
	Unsettled    int `json:"unsettled"`
	Refused      int `json:"refused"`

	// Repaired is how many of the missing, stale and orphaned were repaired.
	Repaired int `json:"repaired"`

	Elapsed time.Duration `json:"-"`
}

// Drift returns how many keys differ and were not repaired.
func (s *VerifyState) Drift() int { return s.Missing + s.Stale + s.Orphaned - s.Repaired }

// A VerifyReport is what a Verify has found.
type VerifyReport struct {
	VerifyState

	// Findings are up to 100 keys of each kind (option VerifyFindings), in the order in which they were found.
	Findings []Finding

	// DeadLetters is how many dead letters there are that may have been carried out.
	DeadLetters int
}

// A Finding is a key with which something is wrong.
type Finding struct {
	Key    string    `json:"key"`
	Kind   DriftKind `json:"kind"`
	Reason string    `json:"reason"`

	// Explained is true where a dead letter may be the reason: it may have been carried out, and is younger than what the
	// cache has.
	Explained bool `json:"explained,omitempty"`

	Repaired bool `json:"repaired,omitempty"`
}

// Verify compares the cache with the application. It asks the application for every entry of the cache and for every
// further key of the sequence, as a render does, and stores nothing. It may run beside servers and workers, and needs no
// Run of this worker.
//
// A difference is reported only if nothing explains it: no job that was in the queue when it was seen, no render that is
// pending or running, no group that is being walked; and if it is still the same afterwards. What changes otherwise than
// by jobs, from a program that calls Update afterwards or behind CacheFirst, has to be followed by its renders within
// VerifySettling. A page that is never the same twice, such as one with a clock, is unsettled.
//
// Where Redis has lost writes (ErrUnsure), a Verify with the option AllKeys that finds no drift, or has repaired all of it,
// ends the doubt.
//
// With the option Repair what has drifted is made pending and rendered, as after a write, and looked at again.
//
// The error is that of the sequence or of ctx, or ErrUnavailable; the report says how far it came. Drift is no error.
func (w *Worker) Verify(ctx context.Context, keys iter.Seq2[string, error], opts ...VerifyOption) (VerifyReport, error) {
	config := verifyConfig{walk: defaultWalkConfig(), parallel: 4 * w.config.render.concurrency, patience: 10 * time.Second, settling: time.Second, findings: 100}
	for _, o := range opts {
		o.applyVerify(&config)
	}
	if err := config.validate(); err != nil {
		return VerifyReport{}, err
	}
	v := newVerification(w, config)
	doubts, err := w.cache.doubts(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	err = v.run(ctx, keys)
	if config.repair {
		w.cache.reach(ctx, w.cache.store.Reach())
	}
	v.report.Elapsed = time.Since(v.start)
	if err == nil {
		err = v.explain(ctx)
	}
	if err == nil && config.allKeys && v.report.Drift()+v.report.Unrenderable+v.report.Unsettled == 0 {
		err = w.cache.endDoubts(ctx, doubts)
	}
	return v.report, err
}

// doubts returns for each partition since when it is unsure, "" if it is not.
func (c *Cache) doubts(ctx context.Context) ([]string, error) {
	var doubts []string
	for _, p := range c.store.All() {
		since, err := p.Unsure(ctx)
		if err != nil {
			return nil, c.unavailable(err)
		}
		doubts = append(doubts, since)
	}
	return doubts, nil
}

// endDoubts makes partitions sure again that were unsure before they were looked at.
func (c *Cache) endDoubts(ctx context.Context, doubts []string) error {
	for i, p := range c.store.All() {
		if doubts[i] == "" {
			continue
		}
		if err := p.Sure(ctx, doubts[i]); err != nil {
			return c.unavailable(err)
		}
	}
	return nil
}

// A verification is one Verify under way.
type verification struct {
	worker *Worker
	cache  *Cache
	config verifyConfig
	audit  *audit.Auditor
	start  time.Time

	mu      sync.Mutex
	report  VerifyReport
	kinds   map[DriftKind]int
	written []int64         // of each of report.Findings when what the cache has was written, in µs; 0 if it has nothing
	strays  map[string]bool // entries that are in no index and that were looked at

	misfiled map[string][]string // key to groups that it is wrongly among the members of; constant when keys are looked at
}

func newVerification(w *Worker, config verifyConfig) *verification {
	v := &verification{
		worker: w, cache: w.cache, config: config, start: time.Now(), kinds: make(map[DriftKind]int),
		strays: make(map[string]bool), misfiled: make(map[string][]string),
	}
	v.audit = audit.New(audit.Config{
		Status: v.status, Look: w.renderer.Look, Jobs: v.cache.jobs,
		Patience: config.patience, Settling: config.settling, Pause: lookAgain,
	})
	return v
}

// jobs returns the ids of the oldest and the newest job in the queue, "" if there is none.
func (c *Cache) jobs(ctx context.Context) (oldest, newest string, err error) {
	if oldest, newest, err = jobqueue.Span(ctx, c.rdb, c.queuePrefix()); err != nil {
		return "", "", c.unavailable(err)
	}
	return oldest, newest, nil
}

// run looks at everything: what the cache has, what the sequence says it should have, and what nobody but somebody who
// has interfered can have put there.
func (v *verification) run(ctx context.Context, keys iter.Seq2[string, error]) error {
	for _, p := range v.cache.store.All() {
		err := p.Misfiled(ctx, func(key, group string) error {
			v.misfiled[key] = append(v.misfiled[key], group)
			return nil
		})
		if err != nil {
			return v.cache.unavailable(err)
		}
	}
	if err := v.through(ctx, v.cache.Keys(ctx), false, v.look); err != nil {
		return err
	}
	if err := v.through(ctx, v.cache.canonicalKeys(keys), v.config.walk.follow, v.named); err != nil {
		return err
	}
	return v.through(ctx, v.unlisted(ctx), false, v.lookAtStray)
}

// named looks at a key that the sequence names, or that is linked from one, unless it was looked at.
func (v *verification) named(ctx context.Context, key string) ([]string, error) {
	if _, err := v.cache.parse(key); err != nil {
		v.note(Finding{Key: key, Kind: Unrenderable, Reason: err.Error()}, 0)
		return nil, nil
	}
	status, err := v.status(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case status.Indexed: // it was looked at, or it has come since
		return v.links(key, status.Value), nil
	case status.Exists:
		return v.lookAtStray(ctx, key)
	}
	return v.look(ctx, key)
}

// links returns the keys that an entry leads to, if they are to be followed.
func (v *verification) links(key, value string) []string {
	entry, err := message.ParseEntry(value)
	if err != nil || entry.Gone || !v.config.walk.follow {
		return nil
	}
	return v.cache.links(key, entry)
}

// unlisted yields the keys of entries that are in no index.
func (v *verification) unlisted(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		stop := errors.New("enough")
		err := v.cache.store.Strays(ctx, func(key string) error {
			if !yield(key, nil) {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			yield("", v.cache.unavailable(err))
		}
	}
}

// lookAtStray looks at a key that is not in the index, once.
func (v *verification) lookAtStray(ctx context.Context, key string) ([]string, error) {
	v.mu.Lock()
	seen := v.strays[key]
	v.strays[key] = true
	v.mu.Unlock()
	if seen {
		return nil, nil
	}
	return v.look(ctx, key)
}

// through does something with every key of a sequence, and with what these lead to if links are to be followed.
func (v *verification) through(ctx context.Context, keys iter.Seq2[string, error], follow bool, do func(context.Context, string) ([]string, error)) error {
	config := v.config.walk
	config.follow = follow
	w := walk{walkConfig: config, parallel: v.config.parallel, do: func(ctx context.Context, at visit) ([]string, error) {
		return do(ctx, at.key)
	}}
	return w.run(ctx, keys)
}

// look compares a key, and repairs it if it is asked to. It returns where the application's answer leads.
func (v *verification) look(ctx context.Context, key string) ([]string, error) {
	got, err := v.audit.Compare(ctx, key)
	if err != nil {
		return nil, err
	}
	finding := Finding{Key: key, Kind: DriftKind(got.Kind), Reason: got.Reason}
	if wrong := v.misfiled[key]; got.Kind == audit.Current && len(wrong) > 0 {
		finding.Kind, finding.Reason = Stale, fmt.Sprintf("the groups %q have it among their members, but it is in the groups of its entry only", wrong)
	}
	if v.config.repair && finding.Kind.Drift() {
		if err := v.repair(ctx, key); err != nil {
			return nil, err
		}
		again, err := v.audit.Compare(ctx, key)
		if err != nil {
			return nil, err
		}
		finding.Repaired = !again.Kind.Drift()
	}
	v.note(finding, got.Written)
	return v.links(key, got.Answer), nil
}

// repair makes a key pending, so that it is rendered whatever becomes of this process, and renders it.
func (v *verification) repair(ctx context.Context, key string) error {
	if err := v.cache.commit(ctx, []partition.Operation{update(key, "", "verify")}); err != nil {
		return err
	}
	_, err := v.worker.renderer.Perform(ctx, render.Work{Needs: []render.Need{{Key: key, Why: "verify"}}})
	if err != nil {
		return err
	}
	if err := v.cache.store.Of(key).Refile(ctx, key, v.misfiled[key]...); err != nil {
		return v.cache.unavailable(err)
	}
	return nil
}

func (v *verification) status(ctx context.Context, key string) (partition.Status, error) {
	status, err := v.cache.store.Of(key).Explain(ctx, key)
	if err != nil {
		return status, v.cache.unavailable(err)
	}
	return status, nil
}

// note counts what was found of a key; a Finding without a kind is one that agrees. written is when what the cache has was
// written.
func (v *verification) note(f Finding, written int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := &v.report
	r.Keys++
	count := map[DriftKind]*int{
		"": &r.Current, DriftKind(audit.Pushed): &r.Pushed, Missing: &r.Missing, Stale: &r.Stale, Orphaned: &r.Orphaned,
		Unrenderable: &r.Unrenderable, Unsettled: &r.Unsettled, NotStorable: &r.Refused,
	}[f.Kind]
	*count++
	if f.Repaired {
		r.Repaired++
	}
	if f.Kind != "" && f.Kind != DriftKind(audit.Pushed) && v.kinds[f.Kind] < v.config.findings {
		v.kinds[f.Kind]++
		r.Findings = append(r.Findings, f)
		v.written = append(v.written, written)
	}
	if v.config.progress != nil {
		state := r.VerifyState
		state.Elapsed = time.Since(v.start)
		v.config.progress(state)
	}
}

// explain says of each finding whether a dead letter may be the reason.
func (v *verification) explain(ctx context.Context) error {
	letters, err := jobqueue.Drifts(ctx, v.cache.rdb, v.cache.queuePrefix())
	if err != nil {
		return v.cache.unavailable(err)
	}
	v.report.DeadLetters = len(letters)
	var latest int64
	for _, letter := range letters {
		latest = max(latest, letter.Died)
	}
	for i := range v.report.Findings {
		f := &v.report.Findings[i]
		f.Explained = f.Kind.Drift() && latest >= v.written[i]
	}
	return nil
}
