package jobqueue_test

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A fate is what becomes of a call on its way.
type fate int

const (
	arrives    fate = iota
	twice           // it is executed and its answer lost, so that go-redis sends it again
	unanswered      // it is executed and its answer lost; the caller is told an error
	delayed         // the caller is told an error; it may be executed later
)

func (f fate) String() string {
	return [...]string{"", " (sent twice)", " (its answer is lost)", " (delayed)"}[f]
}

// executed says whether something is executed before the caller knows more.
func (f fate) executed() bool { return f != delayed }

// answered says whether the caller gets an answer.
func (f fate) answered() bool { return f == arrives || f == twice }

var errBroken = errors.New("connection reset by peer")

// A link is a hook of go-redis that has chosen calls meet their fate, and knows what they were, so that they can be executed
// once more at any later time: a connection that is closed may have left them in a buffer. One goroutine at a time uses it.
type link struct {
	text string // what is in the calls, as an argument of its own; "" for none
	fate fate
	sent [][]any
}

// disturb chooses the calls that have this argument; if their answers do not come, only the first of them.
func (l *link) disturb(text string, f fate) { l.text, l.fate, l.sent = text, f, nil }

// leave ends that, and returns the calls.
func (l *link) leave() (sent [][]any) {
	sent = l.sent
	l.text, l.sent = "", nil
	return sent
}

func (l *link) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *link) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *link) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if l.text == "" || !slices.ContainsFunc(cmd.Args(), func(arg any) bool { return arg == l.text }) {
			return next(ctx, cmd)
		}
		if l.fate.executed() {
			if err := next(ctx, cmd); err != nil { // such as that the script is not known yet
				return err
			}
		}
		l.sent = append(l.sent, slices.Clone(cmd.Args()))
		switch {
		case l.fate == twice:
			return next(ctx, cmd)
		case l.fate == arrives:
			return nil
		}
		l.text = ""
		cmd.SetErr(errBroken)
		return errBroken
	}
}

// has reports whether a call has an argument.
func has(sent []any, arg string) bool {
	return slices.ContainsFunc(sent, func(one any) bool { return one == any(arg) })
}

// reaches returns which streams of replies a call has in its keys.
func reaches(sent []any) func(server string) bool {
	return func(server string) bool {
		return slices.ContainsFunc(sent, func(arg any) bool {
			key, _ := arg.(string)
			return strings.HasSuffix(key, ":replies:"+server)
		})
	}
}
