package redistest_test

import (
	"testing"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

func TestNoServerOutlivesATestBinaryThatDies(t *testing.T) {
	redistest.Require(t)
	for _, test := range []struct {
		name, role string
		kill       bool
	}{
		{name: "by a panic", role: "panics"},
		{name: "by a signal", role: "waits", kill: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir()) // nobody else removes the server's directory
			command := child(t, test.role)
			stdin, err := command.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			stdout, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			address := readLine(t, stdout)
			if test.kill {
				if refuses(t, address) {
					t.Errorf("the server of a living binary does not listen on %s", address)
				}
				if err := command.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if err := command.Wait(); err == nil {
				t.Error("the binary ended well, want it dead")
			}
			await.Until(t, "the server is gone", func() bool { return refuses(t, address) })
		})
	}
}
