package main

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestAWarmServerGoesOnWithoutRedis(t *testing.T) {
	embedded, closeEmbedded, err := startEmbeddedRedis()
	if err != nil {
		t.Fatal(err)
	}
	closeOnce := sync.OnceFunc(closeEmbedded)
	t.Cleanup(closeOnce)
	url, database := "redis://"+embedded.Addr(), filepath.Join(t.TempDir(), "tracks.db")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-role", "fill", "-codings", testCodings, "-redis", url, "-db", database}, &stdout, &stderr); code != exitDone {
		t.Fatalf("the fill ended with %d: %s", code, stderr.String())
	}
	for _, test := range []struct {
		arguments []string
		status    int // of a page when Redis is away
	}{
		{[]string{"-warm"}, http.StatusOK},
		{[]string{"-warm", "-local-copy", "33554432", "-redis-replicas", url + "," + url}, http.StatusOK},
		{[]string{"-local-copy", "0", "-redis-replicas", url}, http.StatusServiceUnavailable},
	} {
		server := start(t, append([]string{"-role", "server", "-listen", "127.0.0.1:0", "-redis", url}, test.arguments...)...)
		address := strings.TrimPrefix(server.line(t), "ready server ")
		if response, content := send(t, "GET", address+"/tracks/8.json", "", ""); response.StatusCode != http.StatusOK || !strings.Contains(content, trackName(8)) {
			t.Errorf("%v: track 8 is %d %s", test.arguments, response.StatusCode, content)
		}
		embedded.SetError("LOADING it is away")
		if response, content := send(t, "GET", address+"/tracks/7.json", "", ""); response.StatusCode != test.status {
			t.Errorf("%v: without Redis track 7 is %d %s, want %d", test.arguments, response.StatusCode, content, test.status)
		}
		embedded.SetError("")
		server.end(t, exitDone)
	}
	closeOnce()
	stdout.Reset()
	if code := run(t.Context(), []string{"-role", "server", "-listen", "127.0.0.1:0", "-redis", url, "-warm"}, &stdout, &stderr); code != exitFailed {
		t.Errorf("without Redis a server that is to be warm ended with %d, want %d", code, exitFailed)
	}
	if stdout.Len() > 0 {
		t.Errorf("it says %q", stdout.String())
	}
}

func TestAllIsWarmWhenItIsReady(t *testing.T) {
	p := start(t, "-role", "all", "-codings", testCodings, "-warm", "-listen", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "tracks.db"))
	address := strings.TrimPrefix(p.line(t), "ready all ")
	if page := fetch(t, address+"/tracks/7.json"); !strings.Contains(page, trackName(7)) {
		t.Errorf("track 7 is %s", page)
	}
	p.end(t, exitDone)
}
