package blackbox_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/await"
)

// buriesBrokenJobs: a record in the queue that is no job becomes a dead letter.
func (s *site) buriesBrokenJobs(t *testing.T) {
	deadline := fmt.Sprint(time.Now().Add(time.Hour).UnixMicro())
	job := func(change ...string) []string {
		values := map[string]string{
			"id": "0123456789abcdef0123456789abcdef", "server": "0123456789abcdef0123456789abcdef", "deadline": deadline,
			"scheme": "http", "remote": "192.0.2.1:1", "request": "POST /tracks HTTP/1.1\r\nHost: localhost\r\n\r\n",
		}
		for i := 0; i < len(change); i += 2 {
			values[change[i]] = change[i+1]
		}
		var list []string
		for name, value := range values {
			list = append(list, name, value)
		}
		return list
	}
	broken := [][]string{
		{"hello", "world"},
		job("id", ""), job("server", ""), job("server", "{}:x"), job("deadline", "soon"), job("request", ""),
		job("request", "garbage"), job("request", "POST /tracks HTTP/1.1\r\nHost: local"),
		job("request", "POST tracks HTTP/1.1\r\nHost: localhost\r\n\r\n"), job("request", "POST /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		job("request", "POST /tracks HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n"),
		job("request", strings.Repeat("x", 1<<20)),
	}
	for _, values := range broken {
		if err := s.client.XAdd(t.Context(), &redis.XAddArgs{Stream: s.queueKey("jobs"), Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	await.Within(t, patience, "the broken jobs are dead letters", func() bool {
		return s.length(t, "jobs") == 0 && s.length(t, "dead") == int64(len(broken))
	})
	s.servers[0].post(t, "After the broken jobs", "Menders").is(t, http.StatusCreated)
	s.servers[0].get(t, "/tracks/1001/edit").is(t, http.StatusOK)
	if err := s.client.Del(t.Context(), s.queueKey("dead")).Err(); err != nil {
		t.Fatal(err)
	}
}

// mendsBrokenPages: an entry that cannot be read is neither shown nor said to be missing, and the next change mends it. It
// leaves each entry damaged once more, for a fill.
func (s *site) mendsBrokenPages(t *testing.T, server *process) {
	ctx := t.Context()
	damages := map[string]func(entry, value string) error{
		"deleted":        func(entry, _ string) error { return s.client.Del(ctx, entry).Err() },
		"emptied":        func(entry, _ string) error { return s.client.Set(ctx, entry, "", 0).Err() },
		"cut":            func(entry, value string) error { return s.client.Set(ctx, entry, value[:len(value)-1], 0).Err() },
		"cut at the top": func(entry, value string) error { return s.client.Set(ctx, entry, value[:20], 0).Err() },
		"lengthened":     func(entry, value string) error { return s.client.Set(ctx, entry, value+"x", 0).Err() },
		"overwritten":    func(entry, _ string) error { return s.client.Set(ctx, entry, "hello", 0).Err() },
		"without status": func(entry, value string) error {
			return s.client.Set(ctx, entry, strings.Replace(value, `"status":200`, `"status":0`, 1), 0).Err()
		},
		"with a field that splits": func(entry, value string) error {
			return s.client.Set(ctx, entry, strings.Replace(value, `application/json`, `a\r\nInjected: b`, 1), 0).Err()
		},
		"a list": func(entry, _ string) error {
			_, err := s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.Del(ctx, entry)
				pipe.RPush(ctx, entry, "hello")
				return nil
			})
			return err
		},
	}
	id := int64(10)
	for name, damage := range damages {
		id++
		t.Run(name, func(t *testing.T) {
			resource := trackPath(id) + ".json"
			entry := s.redisKey(resource, "e:"+resource)
			value, err := s.client.Get(ctx, entry).Result()
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(entry, value); err != nil {
				t.Fatal(err)
			}
			server.get(t, resource).isProblem(t, http.StatusServiceUnavailable, "entry-lost")
			server.send(t, putJSON(id, map[string]string{"name": "Mended " + name})).is(t, http.StatusOK)
			if got, want := server.get(t, resource), s.app.get(t, resource); got.page() != want.page() {
				t.Errorf("after a change it is %s, want %s", got.page(), want.page())
			}
			if err := damage(entry, value); err != nil {
				t.Fatal(err)
			}
		})
	}
}
