//go:build race

package jobqueue_test

// raceDetector says whether the test runs with the race detector, which makes histories several times slower.
const raceDetector = true
