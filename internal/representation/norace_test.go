//go:build !race

package representation_test

// raceDetector says whether the test runs with the race detector, which allocates.
const raceDetector = false
