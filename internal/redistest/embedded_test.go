package redistest_test

import (
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
	"github.com/redis/go-redis/v9"
)

func TestEmbeddedKeysExpireAsTimePasses(t *testing.T) {
	rdb := redistest.StartEmbedded(t).Client(t)
	script := redis.NewScript("return redis.call('EXISTS', KEYS[1])")
	for name, exists := range map[string]func(key string) (int64, error){
		"for a command": func(key string) (int64, error) { return rdb.Exists(t.Context(), key).Result() },
		"for a script": func(key string) (int64, error) {
			return script.Run(t.Context(), rdb, []string{key}).Int64()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for key, life := range map[string]time.Duration{"short": 30 * time.Millisecond, "long": time.Hour} {
				if err := rdb.Set(t.Context(), key, "value", life).Err(); err != nil {
					t.Fatal(err)
				}
			}
			await.Until(t, "the short-lived key is gone", func() bool {
				found, err := exists("short")
				if err != nil {
					t.Fatal(err)
				}
				return found == 0
			})
			if found, err := exists("long"); err != nil || found != 1 {
				t.Errorf("the long-lived key: got %d, %v", found, err)
			}
		})
	}
}

func TestEmbeddedIsGoneWhenTheTestEnds(t *testing.T) {
	var address string
	t.Run("test", func(t *testing.T) {
		embedded := redistest.StartEmbedded(t)
		address = embedded.Addr()
		if err := embedded.Client(t).Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	})
	if !refuses(t, address) {
		t.Error("it still listens")
	}
}
