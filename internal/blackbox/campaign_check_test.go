package blackbox_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// told is an answer as a server or the application gives it.
func told(status int, location, media, body string) *answer {
	header := http.Header{"Content-Type": {media}, "Retry-After": {"1"}}
	if location != "" {
		header.Set("Location", location)
	}
	return &answer{status: status, header: header, body: body}
}

// problemOf is an answer of a server's own.
func problemOf(status int, kind string) *answer {
	return told(status, "", problemType,
		fmt.Sprintf(`{"type":"%s%s","status":%d,"title":"a","detail":"b"}`, problemURN, kind, status))
}

func TestAWriterKnowsTheAnswersOfOthers(t *testing.T) {
	reply := func(id int, name string) string { return fmt.Sprintf(`{"id":%d,"name":"%s","artist":"a"}`, id, name) }
	created := func(location, body string) *answer { return told(http.StatusCreated, location, jsonType, body) }
	for name, one := range map[string]struct {
		kind  string
		form  bool
		got   *answer
		want  outcome
		wrong bool
	}{
		"a new track":                       {kind: "POST", got: created("/tracks/7", reply(7, "n")), want: applied},
		"another new track":                 {kind: "POST", got: created("/tracks/7", reply(7, "m")), wrong: true},
		"the place of another new track":    {kind: "POST", got: created("/tracks/8", reply(7, "n")), wrong: true},
		"no place":                          {kind: "POST", got: created("", reply(7, "n")), wrong: true},
		"a form":                            {kind: "POST", form: true, got: told(303, "/tracks/7", "", ""), want: applied},
		"a form that is sent elsewhere":     {kind: "POST", form: true, got: told(303, "/artists/7", "", ""), wrong: true},
		"a reply in the place of a form's":  {kind: "POST", form: true, got: created("/tracks/7", reply(7, "n")), wrong: true},
		"a new track that is not found":     {kind: "POST", got: told(404, "", jsonType, `{}`), wrong: true},
		"a change":                          {kind: "PUT", got: told(200, "", jsonType, reply(5, "n")), want: applied},
		"a change of another track":         {kind: "PUT", got: told(200, "", jsonType, reply(6, "n")), wrong: true},
		"another change":                    {kind: "PUT", got: told(200, "", jsonType, reply(5, "m")), wrong: true},
		"a change that is not found":        {kind: "PUT", got: told(404, "", jsonType, `{}`), wrong: true},
		"a change by a form of another one": {kind: "PUT", form: true, got: told(303, "/tracks/6", "", ""), wrong: true},
		"a deletion":                        {kind: "DELETE", got: told(204, "", "", ""), want: applied},
		"a repeated deletion":               {kind: "DELETE", got: told(404, "", jsonType, `{}`), want: applied},
		"a deletion that the server denies": {kind: "DELETE", got: problemOf(404, "not-found"), wrong: true},
		"a deletion with another's reply":   {kind: "DELETE", got: told(200, "", jsonType, reply(5, "n")), wrong: true},
		"a failure of the application":      {kind: "PUT", got: told(500, "", jsonType, `{}`), wrong: true},
		"a panic":                           {kind: "PUT", got: problemOf(500, "application-panicked"), wrong: true},
		"the death of a worker":             {kind: "PUT", got: problemOf(502, "worker-died"), want: unknown},
		"a broken application":              {kind: "PUT", got: problemOf(502, "application-aborted"), wrong: true},
		"a refusal":                         {kind: "PUT", got: problemOf(503, "store-unreachable"), want: refused},
		"a refusal for no reason":           {kind: "PUT", got: told(503, "", jsonType, `{}`), wrong: true},
		"a deadline":                        {kind: "PUT", got: problemOf(504, "outcome-unknown"), want: unknown},
	} {
		t.Run(name, func(t *testing.T) {
			d := &deed{name: "n", kind: one.kind, form: one.form, state: state{name: "n", artist: "a"}}
			if one.kind != http.MethodPost {
				d.id = 5
			}
			err := d.judge(one.got)
			if (err != nil) != one.wrong || err == nil && d.outcome != one.want {
				t.Errorf("outcome %d, error %v; want outcome %d, an error: %v", d.outcome, err, one.want, one.wrong)
			}
		})
	}
	dial, broken := &net.OpError{Op: "dial", Err: errors.New("refused")}, errors.New("EOF")
	for _, one := range []struct {
		serversDie, wrong bool
		err               error
		want              outcome
	}{{false, true, dial, 0}, {false, true, broken, 0}, {true, false, dial, refused}, {true, false, broken, unknown}, {true, true, timeout{}, 0}} {
		w, d := &writer{campaign: &campaign{serversDie: one.serversDie}}, &deed{}
		if err := w.judge(d, nil, one.err); (err != nil) != one.wrong || d.outcome != one.want {
			t.Errorf("%v: outcome %d, error %v", one.err, d.outcome, err)
		}
	}
}

// timeout is what a client gets that has waited in vain.
type timeout struct{ error }

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return false }

func TestTheAccountKnowsWhatHasBecomeOfEachWrite(t *testing.T) {
	a := newAccount()
	write := func(name, kind string, id int64, o outcome) state {
		t.Helper()
		d := &deed{name: name, kind: kind, id: id, outcome: o, state: state{name: name + " & Co"}}
		if kind == http.MethodDelete {
			d.state = state{gone: true}
		}
		a.begin(d)
		if err := a.end(d); err != nil {
			t.Fatal(err)
		}
		return d.state
	}
	seeded := state{name: "seeded"}
	for id := int64(1); id <= 3; id++ {
		a.tracks[id] = []state{seeded}
	}
	made := write("made", "POST", 4, applied)
	older, newer := write("older", "PUT", 1, applied), write("newer", "PUT", 1, applied)
	refusal := write("refusal", "PUT", 1, refused)
	write("gone", "DELETE", 2, applied)
	perhaps := write("perhaps", "PUT", 3, unknown)
	never, maybe := write("never", "POST", 0, refused), write("maybe", "POST", 0, unknown)
	if err := a.end(&deed{kind: "POST", id: 4, outcome: applied}); err == nil {
		t.Error("two tracks with one id are accepted")
	}

	is := func(change func(map[int64]state)) findings {
		there := map[int64]state{1: newer, 3: perhaps, 4: made}
		change(there)
		return a.compare(there)
	}
	for name, one := range map[string]struct {
		change                         func(map[int64]state)
		lost, again, refused, invented int
	}{
		"as it was told":           {change: func(map[int64]state) {}},
		"without what is unknown":  {change: func(m map[int64]state) { m[3] = seeded }},
		"with what was unknown":    {change: func(m map[int64]state) { m[5] = maybe }},
		"a lost change":            {change: func(m map[int64]state) { m[1] = seeded }, lost: 1},
		"an older change":          {change: func(m map[int64]state) { m[1] = older }, again: 1},
		"a refused change":         {change: func(m map[int64]state) { m[1] = refusal }, refused: 1},
		"a lost deletion":          {change: func(m map[int64]state) { m[2] = seeded }, lost: 1},
		"a lost creation":          {change: func(m map[int64]state) { delete(m, 4) }, lost: 1},
		"an exchange":              {change: func(m map[int64]state) { m[1], m[4] = m[4], m[1] }, lost: 2},
		"something that is gone":   {change: func(m map[int64]state) { delete(m, 3) }, lost: 1},
		"a creation twice":         {change: func(m map[int64]state) { m[5] = made }, again: 1},
		"an unknown one twice":     {change: func(m map[int64]state) { m[5], m[6] = maybe, maybe }, again: 1},
		"a refused creation":       {change: func(m map[int64]state) { m[5] = never }, refused: 1},
		"what nobody has made":     {change: func(m map[int64]state) { m[5] = state{name: "x"} }, invented: 1},
		"a creation with a change": {change: func(m map[int64]state) { m[5] = newer }, invented: 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := is(one.change)
			if len(f.lost) != one.lost || len(f.again) != one.again || len(f.refused) != one.refused || len(f.invented) != one.invented {
				t.Errorf("found %+v", f)
			}
		})
	}
}

func TestWhatIsLeftInRedisIsTold(t *testing.T) {
	s := newSite(t, sharedStore(t))
	c := &campaign{site: s, workers: &crew{site: s, role: "worker"}}
	ctx := t.Context()
	run := func(arguments ...any) {
		t.Helper()
		if err := s.client.Do(ctx, arguments...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	jobs := s.queueKey("jobs")
	run("XGROUP", "CREATE", jobs, "workers", "0", "MKSTREAM")
	run("SET", s.redisKey("/", "e:/"), "")
	run("ZADD", s.redisKey("/", "index"), 0, "/")
	run("SET", s.queueKey("replies:a"), "", "EX", 60)
	if problems := c.leftovers(t, 0); len(problems) != 0 {
		t.Fatalf("a site at rest: %q", problems)
	}
	for name, one := range map[string]struct {
		do, undo []any
		want     string
	}{
		"a job":                        {[]any{"XADD", jobs, "1-1", "a", "b"}, []any{"XDEL", jobs, "1-1"}, "1 jobs are in the queue"},
		"a consumer":                   {[]any{"XGROUP", "CREATECONSUMER", jobs, "workers", "w"}, []any{"XGROUP", "DELCONSUMER", jobs, "workers", "w"}, "a consumer is left"},
		"a worker":                     {[]any{"HSET", s.queueKey("workers"), "w", "1"}, []any{"DEL", s.queueKey("workers")}, "1 workers are known, 0 are there"},
		"a held reply":                 {[]any{"HSET", s.queueKey("held"), "1-1", "a"}, []any{"DEL", s.queueKey("held")}, "there is q:held"},
		"a tracked job":                {[]any{"HSET", s.queueKey("tracked"), "a", "a"}, []any{"DEL", s.queueKey("tracked")}, "there is q:tracked"},
		"who waits":                    {[]any{"HSET", s.queueKey("waiters"), "a", "a"}, []any{"DEL", s.queueKey("waiters")}, "there is q:waiters"},
		"replies that do not expire":   {[]any{"PERSIST", s.queueKey("replies:a")}, []any{"EXPIRE", s.queueKey("replies:a"), 60}, "q:replies:a expires in"},
		"calls that are not forgotten": {[]any{"SET", s.queueKey("seen:1"), ""}, []any{"DEL", s.queueKey("seen:1")}, "q:seen:1 expires in"},
		"a dead letter":                {[]any{"XADD", s.queueKey("dead"), "1-1", "a", "b"}, []any{"DEL", s.queueKey("dead")}, "there are 1 dead letters"},
		"a count of dead letters":      {[]any{"HSET", s.queueKey("statistics"), "dead", 1}, []any{"DEL", s.queueKey("statistics")}, `"1" dead letters are counted`},
		"a claim":                      {[]any{"HSET", s.redisKey("/", "claims"), "/", "a"}, []any{"DEL", s.redisKey("/", "claims")}, "there is claims"},
		"a failed render":              {[]any{"HSET", s.redisKey("/", "failing"), "/", "a"}, []any{"DEL", s.redisKey("/", "failing")}, "there is failing"},
		"an entry without an index":    {[]any{"SET", s.redisKey("/", "e:/a"), ""}, []any{"DEL", s.redisKey("/", "e:/a")}, "there are 2 entries, and 1 in the index"},
		"something else":               {[]any{"SET", s.queueKey("else"), ""}, []any{"DEL", s.queueKey("else")}, "there is q:else"},
	} {
		t.Run(name, func(t *testing.T) {
			run(one.do...)
			defer run(one.undo...)
			problems := c.leftovers(t, 0)
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, one.want) }) {
				t.Errorf("told %q, want %q", problems, one.want)
			}
		})
	}
	run("XADD", jobs, "2-1", "a", "b")
	run("XREADGROUP", "GROUP", "workers", "w", "STREAMS", jobs, ">")
	if problems := c.leftovers(t, 0); !slices.Contains(problems, "1 jobs are delivered and not acknowledged") {
		t.Errorf("a job that is under way: told %q", problems)
	}
}
