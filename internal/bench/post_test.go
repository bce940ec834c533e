package main

import "testing"

func TestPostsAreComparedWithTheBareApplication(t *testing.T) {
	const positive = `(0\.\d*[1-9]\d*|[1-9]\d*\.\d{3})$`
	runs(t, "-run post -rounds 1 -seconds 0.1 -heap 0",
		`1 callers$`, `64 callers$`, `  bare .* 0\.0 worker, +0\.0 Redis; `,
		`figure post_c1_p50_ratio `+positive, `figure post_c1_cpu_ratio `+positive,
		`figure post_render_c1_p50_ratio `+positive, `figure post_render_c1_cpu_ratio `+positive,
		`figure post_c64_throughput_ratio `+positive, `figure post_c64_cpu_ratio `+positive,
		`figure post_render_c64_throughput_ratio `+positive, `figure post_render_c64_cpu_ratio `+positive)
}
