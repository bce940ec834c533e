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

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/variant"
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
	vary          variant.Fields
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

// Vary declares that answers of the application may depend on a field of requests, and with which values of it the
// application is asked; "" asks without the field, in fields other than Accept-Language and Accept. A page that has the field in its Vary is rendered with each value, and
// stored with all its variants in one entry. Without this option such a page is refused.
//
// A request gets the variant that its own field asks for: by language for Accept-Language, by media type for Accept, and by an
// equal value for any other field. Where it asks for nothing that there is, it gets the first value. Among media types, "*/*"
// stands for what the application answers to who asks for nothing in particular; it counts as what a request accepts besides
// the others. For example:
//
//	scales.Vary("Accept-Language", "en", "de", "pt-BR")
//	scales.Vary("Accept", "*/*", "application/json")
//	scales.Vary("X-Device", "", "phone")
//
// Every render has the first value of each declared field, unless it is for another variant. The others are asked for when an
// answer says in its Vary that there are any, so each answer has to say so: that to the first value, and a 404, too. A variant
// that the application answers with a 404 is missing, and the others exist. If a variant fails, or must not be stored, that
// is what becomes of the whole page.
//
// The option may be given several times, for fields whose values are combined. There are at most 64 variants. Their bodies
// together may have MaxEntrySize, their renders together take RenderTimeout, one after another unless other renders are free,
// and together they are in up to 128 groups. Fields that tell who asks (Cookie, Authorization) cannot be declared, nor those
// that Scales has to do with (Host, Accept-Encoding, Range and preconditions) or that are about a connection.
//
// What is pushed has no variants: it is for all requests, until the next render. What is written from now on has variants:
// after a change of this option a Fill with FillAnew makes the others.
func Vary(name string, values ...string) CacheOption {
	return cacheOption(func(c *cacheConfig) {
		c.vary = append(c.vary, variant.Field{Name: http.CanonicalHeaderKey(name), Values: slices.Clone(values)})
	})
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
	if err := c.vary.Check(); err != nil {
		r.that(false, "option Vary: %v", err)
	}
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
