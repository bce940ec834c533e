package partition

import (
	"maps"
	"testing"
)

func FuzzReach(f *testing.F) {
	for _, text := range []string{"", "0:1795420254911-7", "0:1-0 15:2-0", "x:1", "0:", ":", "-1:a:b", "99999999999999999999:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		reach := ParseReach(text)
		if again := ParseReach(reach.String()); !maps.Equal(again, reach) {
			t.Fatalf("%q: %v became %v", text, reach, again)
		}
	})
}
