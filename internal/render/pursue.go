package render

import (
	"errors"
	"time"

	"github.com/itscales/scales/internal/partition"
)

// pursue brings a flight to its end, whoever holds its key at the moment: it waits for the render that runs, and then
// for one that began later, its own or another's. claim is the answer to the first wish, if there was one.
//
// Two processes need key k at the same time:
//
//	A: claim -> claimed, ticket 7            B: claim -> busy, need 8; k is pending again
//	A: asks the application                  B: watches the change log from the tail it was given
//	A: commits with ticket 7; k is due       B: sees that, claims with need 8: 7 does not show what B needs
//	B or a third: claims k, ticket 9         if it is a third, B is busy again, and done when it has committed
func (r *Renderer) pursue(f *flight, claim partition.Claim, token string) {
	defer func() { r.asked(token) }()
	r.share.seal(f)
	p := r.config.Store.Of(f.key)
	need := ""
	tries, missed := 0, 0
	backoff := firstBackoff
	for {
		switch claim.Granted {
		case partition.Busy:
			need = claim.Ticket
			missed = r.await(p, f.key, claim.Tail, missed)
		case partition.Claimed:
			due := partition.Due{Key: f.key, Position: claim.Position, Cause: f.cause}
			r.hold(p, due)
			r.asked(token)
			op, result := r.askOne(due, f.at)
			op.Limited = f.limited
			commit, err := r.commit(p, []partition.Operation{op})
			r.release(op)
			r.pause(AfterCommit, f.key)
			if err == nil && commit.Outcomes[0].Again() && tries < attempts {
				tries++
				token, need = r.asking(), ""
				break
			}
			if err != nil || commit.Outcomes[0].Again() {
				r.share.land(f, Result{f.key, Failed, "its ticket was refused"})
				return
			}
			r.share.land(f, r.conclude(result, commit.Outcomes[0]))
			return
		case partition.Done:
			r.share.land(f, Result{Key: f.key, State: Stored})
			return
		case partition.Failed:
			r.share.land(f, Result{f.key, Failed, claim.Detail})
			return
		case partition.Pushed:
			r.share.land(f, Result{Key: f.key, State: Pushed})
			return
		}
		var err error
		claim, err = p.Claim(r.stopped, partition.Wish{Key: f.key, Token: token, Need: need, Cause: f.cause})
		if r.stopped.Err() != nil {
			r.share.land(f, Result{f.key, Failed, "the renderer was closed"})
			return
		}
		r.config.Writing.Note(r.stopped, err)
		switch {
		case errors.Is(err, partition.ErrLayout):
			r.share.land(f, Result{f.key, Failed, err.Error()})
			return
		case err != nil:
			claim = partition.Claim{}
			r.wait(backoff)
			backoff = min(2*backoff, maxBackoff)
		}
	}
}

// await waits until something has come to its end at the key, or it is time to look. It returns how often in a row the
// change log may have been read past that already.
func (r *Renderer) await(p *partition.Partition, key, tail string, missed int) int {
	ended, passed, stop := p.Watch(key, tail)
	defer stop()
	patience := recheck
	if passed {
		if missed++; missed == 1 {
			return missed // look again at once: from now on the watch misses nothing
		}
		patience = firstBackoff
	} else {
		missed = 0
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	case <-r.stopped.Done():
	}
	return missed
}
