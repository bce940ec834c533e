package blackbox_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// letters are dead letters of a campaign.
type letters []letter

type letter struct {
	deed   *deed
	reason string
	drift  bool
}

var writeLine = regexp.MustCompile(`(?m)^` + writeField + `: (\S+)\r$`)

// areNone expects that no request was given up: no worker has died.
func (all letters) areNone(t *testing.T) {
	t.Helper()
	for _, l := range all[:min(len(all), 5)] {
		t.Errorf("one of %d dead letters: %v: %s", len(all), l.deed, l.reason)
	}
}

// deadLetters returns the dead letters. It expects each to be a deed whose client was told that nobody knows, once, and every
// deed of which a client was told that its worker died to be among them.
func (c *campaign) deadLetters(t *testing.T) letters {
	t.Helper()
	messages, err := c.site.client.XRange(t.Context(), c.site.queueKey("dead"), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all letters
	buried, reasons := map[*deed]bool{}, map[string]int{}
	for _, m := range messages {
		field := func(name string) string { text, _ := m.Values[name].(string); return text }
		reasons[field("reason")]++
		match := writeLine.FindStringSubmatch(field("request"))
		if match == nil || c.account.deeds[match[1]] == nil {
			t.Errorf("the dead letter %v is no client's", m.Values)
			continue
		}
		d := c.account.deeds[match[1]]
		if d.outcome != unknown || buried[d] {
			t.Errorf("seed %d: a dead letter, %v, is of %v; another one: %v", c.seed, m.Values, d, buried[d])
		}
		buried[d] = true
		all = append(all, letter{deed: d, reason: field("reason"), drift: field("drift") == "1"})
	}
	for _, d := range c.account.deeds {
		if strings.HasPrefix(d.told, fmt.Sprint(http.StatusBadGateway)) && !buried[d] {
			t.Errorf("seed %d: there is no dead letter of %v", c.seed, d)
		}
	}
	t.Logf("%d dead letters, by reason: %v", len(all), reasons)
	return all
}

// isClean compares the cache with the application, and expects only what dead letters explain, or any drift where Redis has
// lost something; and nothing after a repair.
func (c *campaign) isClean(t *testing.T, dead letters) {
	t.Helper()
	first, _ := c.site.audit(t)
	t.Logf("verify: %d keys, %d drifted, with %d dead letters; %.1f s", *first.Keys, *first.Drift, *first.DeadLetters, *first.Seconds)
	if *first.Unrenderable+*first.Unsettled+*first.Refused != 0 {
		t.Errorf("seed %d: some pages cannot be compared: %+v", c.seed, first.Findings)
	}
	if *first.Drift == 0 {
		return
	}
	if !c.loses {
		c.isExplained(t, first, c.explainedBy(t, dead))
	}
	repaired := c.site.verify(t, 0, "-repair")
	t.Logf("verify -repair: %d repaired, %d left", *repaired.Repaired, *repaired.Drift)
	if *repaired.Repaired < *first.Drift {
		t.Errorf("seed %d: %d keys had drifted, %d were repaired", c.seed, *first.Drift, *repaired.Repaired)
	}
	if again := c.site.verify(t, 0); len(again.Findings) != 0 {
		t.Errorf("seed %d: after the repair: %v", c.seed, again.kinds())
	}
}

// isExplained expects everything that differs to be among the keys. A verify lists some of what it counts, so all pages are read
// as well.
func (c *campaign) isExplained(t *testing.T, found *audit, keys map[string]bool) {
	t.Helper()
	for kind, all := range found.Findings {
		for _, f := range all {
			if !keys[f.Key] || !f.Explained {
				t.Errorf("seed %d: no dead letter explains that %s is %s: %s (the verify says: %v)", c.seed, f.Key, kind, f.Reason, f.Explained)
			}
		}
	}
	pages := c.pages(t)
	want, err := readAll(t.Context(), c.site.app, pages)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(t.Context(), c.site.servers[0], pages)
	if err != nil {
		t.Fatal(err)
	}
	differ := 0
	for _, key := range pages {
		if err := compareOne(want[key], got[key]); err != nil {
			differ++
			if !keys[key] {
				t.Errorf("seed %d: no dead letter explains %s: %v", c.seed, key, err)
			}
		}
	}
	if differ != *found.Drift {
		t.Errorf("seed %d: %d pages differ from those of the application, and a verify counts %d", c.seed, differ, *found.Drift)
	}
	t.Logf("all %d pages that differ are explained by dead letters", differ)
}

// pages returns the resources of the application, and those that it has had.
func (c *campaign) pages(t *testing.T) []string {
	t.Helper()
	newest := int64(0)
	for id := range c.account.tracks {
		newest = max(newest, id)
	}
	for id := range contents(t, c.site.app) {
		newest = max(newest, id)
	}
	return allKeys(t, c.site.app, newest)
}

// explainedBy returns the keys that the responses lost with the letters would have named.
func (c *campaign) explainedBy(t *testing.T, dead letters) map[string]bool {
	t.Helper()
	keys := map[string]bool{}
	if len(dead) == 0 {
		return keys
	}
	slugs := map[string]string{}
	for _, artist := range read[artistList](t, c.site.app, "/artists.json").Artists {
		slugs[artist.Name] = artist.Slug
	}
	ids := map[string]int64{}
	for id, is := range contents(t, c.site.app) {
		ids[is.name] = id
	}
	for _, l := range dead {
		if !l.drift {
			continue
		}
		id := l.deed.id
		if id == 0 {
			id = ids[l.deed.state.name] // 0 if it was not carried out
		}
		named := append(trackKeys(id), "/", "/tracks", "/tracks.json", "/artists", "/artists.json")
		for _, s := range append(c.account.tracks[id], l.deed.state) {
			if slug, ok := slugs[s.artist]; ok {
				named = append(named, artistKeys(slug)...)
			}
		}
		for _, key := range named {
			keys[key] = true
		}
	}
	return keys
}
