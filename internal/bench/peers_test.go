package main

import (
	"os/exec"
	"runtime"
	"testing"
)

func TestPeersAreCompared(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processor times of other programs are read from /proc")
	}
	want := []string{`peers: `}
	if _, err := exec.LookPath("wrk"); err == nil {
		for _, peer := range []struct{ program, name string }{{"nginx", "nginx"}, {"varnishd", "varnish"}} {
			if _, err := exec.LookPath(peer.program); err != nil {
				want = append(want, peer.program+` is not in PATH`)
				continue
			}
			want = append(want, `figure peers_`+peer.name+`_vs_ours \d+\.\d{3} \(goal above 1\)$`, `figure peers_`+peer.name+`_vs_ours_at_rate \d+\.\d{3} \(`)
		}
	}
	runs(t, "-run peers -rounds 1 -seconds 1 -reads 1000", want...)
}

func TestWithoutOtherProgramsPeersSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	runsWithout(t, "-run peers", `peers: wrk is not in PATH; nothing was measured$`)
}
