package scales

import "time"

type walkConfig struct {
	follow  bool
	maxKeys int
	limited bool // MaxKeys was given
}

func defaultWalkConfig() walkConfig { return walkConfig{maxKeys: 1_000_000} }

// FollowLinks has a Fill go on to what the resources lead to: the links and assets in their HTML, SVG and CSS, and the
// Location of a redirect, as far as they are of the same origin (the Origin of the cache, or its Hosts). The keys of the
// sequence are where it starts; each key is worked on once, however many links lead to it.
//
// What is only reached by a script, by a form or by JSON is not found. A link is followed with a GET, as a browser or a
// search engine does, so a link that changes something when it is followed is a mistake of the application. A page that
// travels as a job (Delegate) is stored too if a link leads to it; nobody reads it from the cache. A link to what does not
// exist is no failure: its key is refused, and the reason names a page that has the link.
//
// All keys that were found are held in memory, with about 100 bytes for each beside the key itself: 150 MB for a million
// keys of 50 bytes.
func FollowLinks() WalkOption {
	return walkOption(func(c *walkConfig) { c.follow = true })
}

// MaxKeys limits how many keys are worked on with FollowLinks, those of the sequence included; with more the error is
// ErrTooManyKeys. It ends a walk through links that never end, as of a calendar. Default 1,000,000. Without FollowLinks it
// is a mistake.
func MaxKeys(n int) WalkOption {
	return walkOption(func(c *walkConfig) { c.maxKeys, c.limited = n, true })
}

func (c *walkConfig) validate(r *require) {
	r.that(c.maxKeys >= 1, "option MaxKeys: %d is not positive", c.maxKeys)
	r.that(c.follow || !c.limited, "option MaxKeys: it needs FollowLinks")
}

type fillConfig struct {
	walk     walkConfig
	parallel int
	anew     bool
	progress func(FillState)
}

// FillParallel sets how many keys a fill works on at once. Default four times the RenderConcurrency of the worker.
func FillParallel(n int) FillOption {
	return fillOption(func(c *fillConfig) { c.parallel = n })
}

// FillAnew has a fill render every key, whatever an earlier one that did not end has left. It is for when the application
// has changed since, as after a deployment: the fence knows of changes that writes made, not of those to the program.
func FillAnew() FillOption {
	return fillOption(func(c *fillConfig) { c.anew = true })
}

// FillProgress sets a function that is called after each key, one call at a time.
func FillProgress(report func(FillState)) FillOption {
	return fillOption(func(c *fillConfig) { c.progress = report })
}

type verifyConfig struct {
	walk     walkConfig
	parallel int
	patience time.Duration
	settling time.Duration
	findings int
	allKeys  bool
	repair   bool
	progress func(VerifyState)
}

func (c *verifyConfig) validate() error {
	var r require
	c.walk.validate(&r)
	r.that(c.parallel >= 1, "option VerifyParallel: %d is not positive", c.parallel)
	r.that(c.patience > 0, "option VerifyPatience: %v is not positive", c.patience)
	r.that(c.settling >= 0, "option VerifySettling: %v is negative", c.settling)
	r.that(c.findings >= 0, "option VerifyFindings: %d is negative", c.findings)
	return r.err()
}

// Repair has what has drifted rendered again.
func Repair() VerifyOption {
	return verifyOption(func(c *verifyConfig) { c.repair = true })
}

// VerifyParallel sets how many keys a verify works on at once. Default four times the RenderConcurrency of the worker.
func VerifyParallel(n int) VerifyOption {
	return verifyOption(func(c *verifyConfig) { c.parallel = n })
}

// VerifyPatience limits how long a verify waits, for each key, for the end of the writes that may explain a difference.
// Default ten seconds.
func VerifyPatience(d time.Duration) VerifyOption {
	return verifyOption(func(c *verifyConfig) { c.patience = d })
}

// VerifySettling sets how long a difference has to last at least: longer than it takes from a change that is not made by a
// job to the renders that it is followed by. Default one second.
func VerifySettling(d time.Duration) VerifyOption {
	return verifyOption(func(c *verifyConfig) { c.settling = d })
}

// AllKeys says that the sequence names every resource there should be, as that of a Fill does. Then a Verify without drift
// ends the doubt about a cache of which Redis has lost writes: what was lost shows in no other way.
func AllKeys() VerifyOption {
	return verifyOption(func(c *verifyConfig) { c.allKeys = true })
}

// VerifyFindings sets how many keys of each kind are named in the report. Default 100.
func VerifyFindings(n int) VerifyOption {
	return verifyOption(func(c *verifyConfig) { c.findings = n })
}

// VerifyProgress sets a function that is called after each key, one call at a time.
func VerifyProgress(report func(VerifyState)) VerifyOption {
	return verifyOption(func(c *verifyConfig) { c.progress = report })
}

func (c *fillConfig) validate() error {
	var r require
	c.walk.validate(&r)
	r.that(c.parallel >= 1, "option FillParallel: %d is not positive", c.parallel)
	return r.err()
}
