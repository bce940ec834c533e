package scales

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/localcopy"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// Options are sealed per role: one that is given to the wrong constructor does not compile.
type (
	// A CacheOption shapes a Cache. What shapes keys belongs to the Cache, because all roles must agree on it.
	CacheOption interface{ applyCache(*cacheConfig) }
	// A ServerOption shapes a Server.
	ServerOption interface{ applyServer(*serverConfig) }
	// A WorkerOption shapes a Worker.
	WorkerOption interface{ applyWorker(*workerConfig) }
	// A CacheFirstOption shapes the CacheFirst middleware.
	CacheFirstOption interface{ applyCacheFirst(*cacheFirstConfig) }
	// A FillOption shapes one Fill.
	FillOption interface{ applyFill(*fillConfig) }
	// A VerifyOption shapes one Verify.
	VerifyOption interface{ applyVerify(*verifyConfig) }
	// A WalkOption shapes how whoever is given a sequence of keys goes through it: a Fill or a Verify.
	WalkOption interface {
		FillOption
		VerifyOption
	}
	// A ReadOption shapes whoever reads for clients: a Server or the CacheFirst middleware.
	ReadOption interface {
		ServerOption
		CacheFirstOption
	}
	// A RenderOption shapes whoever renders: a Worker or the CacheFirst middleware.
	RenderOption interface {
		WorkerOption
		CacheFirstOption
	}
)

type (
	cacheOption      func(*cacheConfig)
	serverOption     func(*serverConfig)
	workerOption     func(*workerConfig)
	cacheFirstOption func(*cacheFirstConfig)
	fillOption       func(*fillConfig)
	verifyOption     func(*verifyConfig)
	walkOption       func(*walkConfig)
	renderOption     func(*renderConfig)
	readOption       func(*readConfig)
)

func (o cacheOption) applyCache(c *cacheConfig)                { o(c) }
func (o serverOption) applyServer(c *serverConfig)             { o(c) }
func (o workerOption) applyWorker(c *workerConfig)             { o(c) }
func (o cacheFirstOption) applyCacheFirst(c *cacheFirstConfig) { o(c) }
func (o fillOption) applyFill(c *fillConfig)                   { o(c) }
func (o verifyOption) applyVerify(c *verifyConfig)             { o(c) }
func (o walkOption) applyFill(c *fillConfig)                   { o(&c.walk) }
func (o walkOption) applyVerify(c *verifyConfig)               { o(&c.walk) }
func (o renderOption) applyWorker(c *workerConfig)             { o(&c.render) }
func (o renderOption) applyCacheFirst(c *cacheFirstConfig)     { o(&c.render) }
func (o readOption) applyServer(c *serverConfig)               { o(&c.read) }
func (o readOption) applyCacheFirst(c *cacheFirstConfig)       { o(&c.read) }

type cacheConfig struct {
	namespace     string
	partitions    int
	origin        string
	queryAll      bool
	query         []string
	hosts         []string
	maxKey        int
	maxEntry      int
	maxEntries    int
	tombstoneLife time.Duration
	logLength     int
	timeout       time.Duration
	claimLease    time.Duration
	codings       coding.Config
	logger        *slog.Logger

	guards      partition.Guards // tests only
	queueGuards jobqueue.Guards  // tests only
}

func defaultCacheConfig() cacheConfig {
	return cacheConfig{
		namespace: "scales", partitions: 1, origin: "http://localhost", queryAll: true,
		maxKey: 2048, maxEntry: 8 << 20, maxEntries: 10_000_000, tombstoneLife: 10 * time.Minute, logLength: 100_000,
		timeout: time.Second, claimLease: 5 * time.Second, logger: slog.Default(),
		codings: coding.Config{Names: coding.DefaultNames(), MinSize: coding.DefaultMinSize, Types: coding.DefaultTypes()},
	}
}

// Namespace names the application; many applications can share a Redis. One to 64 letters, digits, dots, underscores and
// hyphens. Default "scales".
func Namespace(name string) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.namespace = name })
}

// Partitions sets into how many parts the cache is cut, 1 to 1024. Default 1; a Redis Cluster wants a few times as many
// as it will ever have nodes. The number is recorded in Redis with the first write and cannot change after that: whoever
// comes with another one gets ErrLayout for every write and every miss.
func Partitions(n int) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.partitions = n })
}

// Origin sets the scheme and host with which the application is asked in a render, and which counts as its own in
// Location and Link fields besides the Host of a job: "https://example.com". Default "http://localhost". A client has no
// influence on it.
func Origin(origin string) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.origin = origin })
}

// QueryParameters names the query parameters that count in a key. The others are ignored, so that a page is found
// whatever is appended to its address (utm_source and the like). Without names no parameter counts. Without this option
// all do.
func QueryParameters(names ...string) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.queryAll, c.query = false, names })
}

// Hosts makes the host a part of every key, which then reads "//host/path". Requests to other hosts are refused with 421.
// Without this option the host does not count.
func Hosts(names ...string) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.hosts = append([]string{}, names...) })
}

// MaxKeyLength limits the length of a key in bytes; requests with a longer one are answered 414. Default 2048.
func MaxKeyLength(bytes int) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.maxKey = bytes })
}

// MaxEntrySize limits the body of an entry in bytes. A larger representation is refused: its key is destroyed, and it is
// reported. Default 8 MiB.
func MaxEntrySize(bytes int) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.maxEntry = bytes })
}

// MaxEntries limits how many entries each partition may have for requests to bring further ones into being, and how many
// keys may be pending. The entries of Fill and Push, and those that a handler names and that its worker renders before the
// reply, are not limited by it; what is rendered later is, because nobody knows any more who has brought it up. Default
// 10,000,000.
func MaxEntries(n int) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.maxEntries = n })
}

// TombstoneLife sets how long a destroyed key keeps off writes that began before it was destroyed. It must be longer than
// any render takes; writes that are older are refused and made again. At least one second, default ten minutes.
func TombstoneLife(d time.Duration) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.tombstoneLife = d })
}

// LogLength sets how many records the change log of each partition keeps, approximately. Default 100,000.
func LogLength(n int) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.logLength = n })
}

// StoreTimeout sets how long an operation on Redis may take before it counts as an outage, whatever the time-outs of the
// client are. Up to five seconds, default one.
func StoreTimeout(d time.Duration) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.timeout = d })
}

// ClaimLease sets after how long the renders of a process that has died are made by another. Running renders are
// prolonged, however long they take. At least 10 ms, default five seconds.
func ClaimLease(d time.Duration) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.claimLease = d })
}

// Codings names the content codings in which entries are stored besides the plain body, so that a server only has to choose:
// "br", "zstd" and "gzip". Default all three; without names none. A coding that saves nothing is left out. It is what is
// written from now on that has them: after a change of this option a Fill makes the others.
func Codings(names ...string) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.codings.Names = names })
}

// CodingMinSize sets from how many bytes on a body is stored in content codings. Default 1024: what leaves
// in one packet arrives no earlier for being smaller.
func CodingMinSize(bytes int) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.codings.MinSize = bytes })
}

// CodingTypes names the media types whose bodies are stored in content codings: "text/html", "text/*" for all of a type,
// "*/*+json" for all with a suffix. Default are those of text: text/*, JSON, XML, JavaScript, SVG and the like.
func CodingTypes(types ...string) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.codings.Types = types })
}

// Logger sets where the Cache, and whatever uses it, logs. Default slog.Default().
func Logger(l *slog.Logger) CacheOption {
	return cacheOption(func(c *cacheConfig) { c.logger = l })
}

var validNamespace = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// require collects what is wrong with options.
type require []error

func (r *require) that(ok bool, format string, args ...any) {
	if !ok {
		*r = append(*r, fmt.Errorf("scales: "+format, args...))
	}
}

func (r *require) err() error { return errors.Join(*r...) }

func (c *cacheConfig) validate() (*url.URL, *canonical.Rules, error) {
	var r require
	r.that(validNamespace.MatchString(c.namespace), "option Namespace: %q is not 1 to 64 of A-Z a-z 0-9 . _ -", c.namespace)
	r.that(c.partitions >= 1 && c.partitions <= 1024, "option Partitions: %d is not between 1 and 1024", c.partitions)
	r.that(c.maxKey >= 1, "option MaxKeyLength: %d is not positive", c.maxKey)
	r.that(c.maxEntry >= 1, "option MaxEntrySize: %d is not positive", c.maxEntry)
	r.that(c.maxEntries >= 1, "option MaxEntries: %d is not positive", c.maxEntries)
	r.that(c.tombstoneLife >= time.Second, "option TombstoneLife: %v is under one second", c.tombstoneLife)
	r.that(c.logLength >= 1, "option LogLength: %d is not positive", c.logLength)
	r.that(c.timeout > 0 && c.timeout <= 5*time.Second, "option StoreTimeout: %v is not over 0 and up to 5 s", c.timeout)
	r.that(c.claimLease >= 10*time.Millisecond, "option ClaimLease: %v is under 10 ms", c.claimLease)
	r.that(c.logger != nil, "option Logger: nil")
	origin, err := url.Parse(c.origin)
	if err != nil || origin.Host == "" || origin.Scheme != "http" && origin.Scheme != "https" ||
		strings.TrimSuffix(origin.Path, "/") != "" || origin.RawQuery != "" || origin.Fragment != "" || origin.User != nil {
		r.that(false, "option Origin: %q is not scheme://host or scheme://host:port", c.origin)
	}
	rules := &canonical.Rules{QueryAll: c.queryAll, Query: c.query, MaxLength: c.maxKey}
	if c.hosts != nil {
		r.that(len(c.hosts) > 0, "option Hosts: no host is named")
		for _, name := range c.hosts {
			host, err := canonical.Host(name)
			r.that(err == nil, "option Hosts: %q is not a host: %v", name, err)
			rules.Hosts = append(rules.Hosts, host)
		}
	}
	return origin, rules, r.err()
}

type readConfig struct {
	localCopy int64
	replicas  []redis.UniversalClient

	guards localcopy.Guards // tests only
}

func defaultReadConfig() readConfig { return readConfig{localCopy: 64 << 20} }

// LocalCopy limits the copy of entries that a Server, or a CacheFirst middleware, keeps in its own memory, in bytes. What is
// in it is served without asking Redis, and goes on to be served while Redis is away. It is filled by reads, or by
// Server.Warm, and kept current by the change log: a change that the process itself has made is seen at once, that of
// another after the time a message takes. It needs a connection to Redis for each partition. 0 turns it off. Default 64 MiB.
func LocalCopy(bytes int64) ReadOption {
	return readOption(func(c *readConfig) { c.localCopy = bytes })
}

// Replicas names clients of replicas of the cache's Redis, that reads may go to in turn: a client for each, or one that
// chooses among several, such as that of a cluster with ReadOnly. Scales never closes them. Reads of what a replica has not got
// yet go to the primary: whoever has the reply to a write sees that write, and no read shows something older than what the
// same process has shown. A replica that fails is left alone for a second.
func Replicas(clients ...redis.UniversalClient) ReadOption {
	return readOption(func(c *readConfig) { c.replicas = clients })
}

func (c *readConfig) validate(r *require) {
	r.that(!slices.Contains(c.replicas, nil), "option Replicas: nil client")
	r.that(c.localCopy >= 0, "option LocalCopy: %d is negative", c.localCopy)
}

type serverConfig struct {
	read        readConfig
	deadline    time.Duration
	maxBody     int64
	bodyMemory  int64
	bodyTimeout time.Duration
	maxQueue    int
	delegate    func(*http.Request) bool
	notFound    http.Handler
	reserved    string
}

func defaultServerConfig() serverConfig {
	return serverConfig{
		read: defaultReadConfig(), deadline: 15 * time.Second, maxBody: 1 << 20, bodyMemory: 256 << 20, bodyTimeout: 10 * time.Second, maxQueue: 10_000, reserved: "/.scales/",
	}
}

// Deadline sets how long a server waits for the reply to a job. A job that no worker has begun by then is withdrawn and
// answered 503; one that is running is answered 504. It should be longer than the Lease of the workers, so that the jobs of
// one that dies are taken over in time. Default 15 seconds.
func Deadline(d time.Duration) ServerOption {
	return serverOption(func(c *serverConfig) { c.deadline = d })
}

// MaxBody limits the body of a request in bytes; a larger one is answered 413. Default 1 MiB.
func MaxBody(bytes int64) ServerOption {
	return serverOption(func(c *serverConfig) { c.maxBody = bytes })
}

// BodyMemory limits the bodies of all requests under way at the server together, in bytes as they arrive; what does not
// fit is answered 503. At least MaxBody; default 256 MiB.
func BodyMemory(bytes int64) ServerOption {
	return serverOption(func(c *serverConfig) { c.bodyMemory = bytes })
}

// BodyTimeout limits the time in which the body of a request must arrive; a slower one is answered 408. It needs a
// ResponseWriter with SetReadDeadline, as those of net/http are. Default ten seconds.
func BodyTimeout(d time.Duration) ServerOption {
	return serverOption(func(c *serverConfig) { c.bodyTimeout = d })
}

// QueueLength limits how many jobs may wait and run at once; further ones are answered 503. Default 10,000.
func QueueLength(n int) ServerOption {
	return serverOption(func(c *serverConfig) { c.maxQueue = n })
}

// Delegate chooses the GET and HEAD requests that travel to a worker as jobs and are never stored: resources that cannot
// be enumerated, such as "/search?q=…", or that depend on who asks, such as "/me". It is the declared exception to the
// rule that reads do not reach the application. It must be safe for concurrent use.
func Delegate(choose func(*http.Request) bool) ServerOption {
	return serverOption(func(c *serverConfig) { c.delegate = choose })
}

// NotFound replaces the answer to a GET of what does not exist. The handler writes the status.
func NotFound(h http.Handler) ServerOption {
	return serverOption(func(c *serverConfig) { c.notFound = h })
}

// ReservedPrefix sets the beginning of the paths that the server keeps for itself; it begins and ends with a slash.
// Default "/.scales/".
func ReservedPrefix(path string) ServerOption {
	return serverOption(func(c *serverConfig) { c.reserved = path })
}

func (c *serverConfig) validate() error {
	var r require
	c.read.validate(&r)
	r.that(c.deadline > 0, "option Deadline: %v is not positive", c.deadline)
	r.that(c.maxBody >= 0, "option MaxBody: %d is negative", c.maxBody)
	r.that(c.bodyMemory >= c.maxBody, "option BodyMemory: %d is under MaxBody, %d", c.bodyMemory, c.maxBody)
	r.that(c.bodyTimeout > 0, "option BodyTimeout: %v is not positive", c.bodyTimeout)
	r.that(c.maxQueue >= 1, "option QueueLength: %d is not positive", c.maxQueue)
	r.that(len(c.reserved) > 2 && strings.HasPrefix(c.reserved, "/") && strings.HasSuffix(c.reserved, "/"),
		"option ReservedPrefix: %q does not begin and end with a slash", c.reserved)
	return r.err()
}

type renderConfig struct {
	concurrency int
	groupLimit  int
	timeout     time.Duration

	guards render.Guards // tests and benchmarks only
}

func defaultRenderConfig() renderConfig {
	return renderConfig{concurrency: 16, groupLimit: 256, timeout: 10 * time.Second}
}

// RenderConcurrency sets how many renders a Worker, or a CacheFirst middleware, runs at once. Default 16.
func RenderConcurrency(n int) RenderOption {
	return renderOption(func(c *renderConfig) { c.concurrency = n })
}

// GroupLimit sets how many members of the groups that a request has changed are rendered before its response leaves, those
// that it names itself not counted. The others are rendered in the background by all workers, behind what requests wait
// for. 0 leaves all to the background. Default 256.
func GroupLimit(n int) RenderOption {
	return renderOption(func(c *renderConfig) { c.groupLimit = n })
}

// RenderTimeout limits the time of one render: its context ends then, and the last good entry stays. Default ten seconds.
func RenderTimeout(d time.Duration) RenderOption {
	return renderOption(func(c *renderConfig) { c.timeout = d })
}

func (c *renderConfig) validate(r *require, tombstoneLife time.Duration) {
	r.that(c.concurrency >= 1, "option RenderConcurrency: %d is not positive", c.concurrency)
	r.that(c.groupLimit >= 0, "option GroupLimit: %d is negative", c.groupLimit)
	r.that(c.timeout > 0, "option RenderTimeout: %v is not positive", c.timeout)
	r.that(c.timeout < tombstoneLife, "option RenderTimeout: %v is not under TombstoneLife, %v", c.timeout, tombstoneLife)
}

type workerConfig struct {
	render       renderConfig
	concurrency  int
	jobTimeout   time.Duration
	lease        time.Duration
	maxReply     int64
	maxDead      int
	drainTimeout time.Duration
}

func defaultWorkerConfig() workerConfig {
	return workerConfig{
		render: defaultRenderConfig(), concurrency: 16, jobTimeout: 5 * time.Minute, lease: 5 * time.Second,
		maxReply: 8 << 20, maxDead: 10_000, drainTimeout: 30 * time.Second,
	}
}

// Concurrency sets how many jobs the application handles at once in this worker. Default 16.
func Concurrency(n int) WorkerOption {
	return workerOption(func(c *workerConfig) { c.concurrency = n })
}

// JobTimeout limits the time of one job: its context ends then. The job keeps its slot until its handler returns.
// Default five minutes.
func JobTimeout(d time.Duration) WorkerOption {
	return workerOption(func(c *workerConfig) { c.jobTimeout = d })
}

// Lease sets how long the heartbeat of a worker may stand still before others take its jobs over. It should be shorter
// than the Deadline of the servers. A job may take longer than it. At least 20 ms, default five seconds.
func Lease(d time.Duration) WorkerOption {
	return workerOption(func(c *workerConfig) { c.lease = d })
}

// MaxReply limits the body of a response to a job in bytes; a larger one is answered 502, although its writes count.
// Default 8 MiB.
func MaxReply(bytes int64) WorkerOption {
	return workerOption(func(c *workerConfig) { c.maxReply = bytes })
}

// MaxDeadLetters sets how many dead letters are kept, approximately; the oldest go first. Default 10,000.
func MaxDeadLetters(n int) WorkerOption {
	return workerOption(func(c *workerConfig) { c.maxDead = n })
}

// DrainTimeout limits how long Run waits for jobs under way when its context has ended. Other workers finish what is left
// then. Default 30 seconds.
func DrainTimeout(d time.Duration) WorkerOption {
	return workerOption(func(c *workerConfig) { c.drainTimeout = d })
}

func (c *workerConfig) validate(tombstoneLife time.Duration) error {
	var r require
	c.render.validate(&r, tombstoneLife)
	r.that(c.concurrency >= 1, "option Concurrency: %d is not positive", c.concurrency)
	r.that(c.jobTimeout > 0, "option JobTimeout: %v is not positive", c.jobTimeout)
	r.that(c.lease >= 20*time.Millisecond, "option Lease: %v is under 20 ms", c.lease)
	r.that(c.maxReply >= 1, "option MaxReply: %d is not positive", c.maxReply)
	r.that(c.maxDead >= 1, "option MaxDeadLetters: %d is not positive", c.maxDead)
	r.that(c.drainTimeout > 0, "option DrainTimeout: %v is not positive", c.drainTimeout)
	return r.err()
}

type cacheFirstConfig struct {
	read   readConfig
	render renderConfig
	app    http.Handler
}

// RenderThrough names the handler through which the CacheFirst middleware renders. It is needed where the middleware does
// not wrap the whole application, but single routes. Without it renders go through the handler that is wrapped.
func RenderThrough(app http.Handler) CacheFirstOption {
	return cacheFirstOption(func(c *cacheFirstConfig) { c.app = app })
}

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
