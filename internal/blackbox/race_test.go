//go:build race

package blackbox_test

// raceDetector says whether the test itself runs with the race detector.
const raceDetector = true
