package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// settings are the flags.
type settings struct {
	role   string
	listen string

	redisURL      string
	redisCluster  string
	redisSentinel string
	redisMaster   string
	redisReplicas string

	database    string
	namespace   string
	partitions  int
	codings     string
	concurrency int
	localCopy   *int64 // nil for the default of Scales
	warm        bool
	deadline    time.Duration
	grace       time.Duration
	maxBody     int64
	lease       time.Duration
	groupLimit  int
	origin      string
	workDelay   time.Duration
	renderDelay time.Duration
	repair      bool
	key         string // of explain: the argument
	keys        string
	anew        bool
}

// groupLimit is how many pages of an artist are current when the reply to a change of the artist arrives, unless a flag says
// otherwise: three for each track.
const groupLimit = 3000

// roleNames are the roles, as the flag -role knows them.
var roleNames = []string{"all", "server", "worker", "fill", "verify", "explain", "stats", "app"}

// servingRoles are those that read the cache for clients.
var servingRoles = []string{"all", "server"}

// keysFrom is where a fill gets its keys, as the flag -keys knows it.
var keysFrom = []string{"database", "links"}

// parseSettings reads the flags. What is wrong with them is written to stderr and is an error; flag.ErrHelp says that
// only help was asked for.
func parseSettings(arguments []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("tracks", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.role, "role", "all", "what to run: "+strings.Join(roleNames, ", "))
	flags.StringVar(&s.listen, "listen", "127.0.0.1:8080", "`address` to listen on; port 0 takes a free one")
	flags.StringVar(&s.redisURL, "redis", "", "`URL` of a Redis, as redis://127.0.0.1:6379; without, all has its own inside")
	flags.StringVar(&s.redisCluster, "redis-cluster", "", "`addresses` of nodes of a Redis Cluster, host:port separated by commas")
	flags.StringVar(&s.redisSentinel, "redis-sentinel", "", "`addresses` of Redis Sentinels, host:port separated by commas")
	flags.StringVar(&s.redisMaster, "redis-master", "", "`name` of the master that the Sentinels watch")
	flags.StringVar(&s.redisReplicas, "redis-replicas", "", "`URLs` of replicas that a server may read from, separated by commas")
	flags.StringVar(&s.database, "db", "tracks.db", "`file` of the SQLite database; made and filled if it is new")
	flags.StringVar(&s.namespace, "namespace", "tracks", "`name` that tells applications in one Redis apart")
	flags.IntVar(&s.partitions, "partitions", 1, "`number` of partitions of the cache")
	flags.StringVar(&s.codings, "codings", "br,zstd,gzip", "`names` of the content codings in which pages are stored besides, separated by commas")
	flags.IntVar(&s.concurrency, "concurrency", 16, "`number` of requests, and of renders, that the application gets at once")
	flags.Func("local-copy", "`bytes` of memory for a server's copy of the cache; 0 has every read ask Redis (default: that of Scales)", s.setLocalCopy)
	flags.BoolVar(&s.warm, "warm", false, "have a server read the cache into its copy before it is ready")
	flags.DurationVar(&s.deadline, "deadline", 15*time.Second, "how long a server waits for the reply to a write")
	flags.DurationVar(&s.grace, "grace", time.Second, "how long a server that is told to stop lets its clients use their connections once more")
	flags.Int64Var(&s.maxBody, "max-body", 1<<20, "largest request body in `bytes`")
	flags.DurationVar(&s.lease, "lease", 5*time.Second, "how long a worker may be silent before others take over its jobs and renders")
	flags.IntVar(&s.groupLimit, "group-limit", groupLimit, "`number` of pages of an artist that are current when a change of the artist is answered")
	flags.StringVar(&s.origin, "origin", "http://localhost", "`URL` (scheme, host, port) under which pages are rendered")
	flags.DurationVar(&s.workDelay, "work-delay", 0, "sleep in writes, after the change of the database")
	flags.DurationVar(&s.renderDelay, "render-delay", 0, "sleep in GETs, after reading the database")
	flags.BoolVar(&s.repair, "repair", false, "have verify render again what has drifted")
	flags.StringVar(&s.keys, "keys", "database", "where a fill gets its keys: "+strings.Join(keysFrom, ", "))
	flags.BoolVar(&s.anew, "anew", false, "have a fill render every page, also where an earlier one did not end")
	if err := flags.Parse(arguments); err != nil {
		return settings{}, err // flags has written it to stderr
	}
	err := errors.Join(s.validate(), s.takeArguments(flags.Args()))
	if err != nil {
		fmt.Fprintln(stderr, "tracks: "+strings.ReplaceAll(err.Error(), "\n", "\ntracks: "))
		fmt.Fprintln(stderr, "tracks: -help lists all flags")
		return settings{}, err
	}
	return s, nil
}

func (s *settings) setLocalCopy(text string) error {
	bytes, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return errors.New("it must be a number of bytes")
	}
	s.localCopy = &bytes
	return nil
}

// takeArguments reads what follows the flags: explain takes a key, nothing else takes anything.
func (s *settings) takeArguments(arguments []string) error {
	if s.role == "explain" && len(arguments) > 0 {
		s.key, arguments = arguments[0], arguments[1:]
	}
	switch {
	case len(arguments) > 0:
		return fmt.Errorf("unexpected argument %q", arguments[0])
	case s.role == "explain" && s.key == "":
		return errors.New("-role explain needs a key, as /tracks/7")
	}
	return nil
}

// validate returns everything that is wrong with the settings, each with the name of its flag.
func (s settings) validate() error {
	var wrong []error
	check := func(ok bool, format string, arguments ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, arguments...))
		}
	}
	check(slices.Contains(roleNames, s.role), "-role must be one of %s, not %q", strings.Join(roleNames, ", "), s.role)
	check(address(s.listen), "-listen must be host:port, not %q", s.listen)
	check(s.database != "", "-db must name a file")
	check(regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`).MatchString(s.namespace),
		"-namespace must be 1 to 64 of letters, digits, '.', '_' and '-', not %q", s.namespace)
	check(s.partitions >= 1 && s.partitions <= 1024, "-partitions must be 1 to 1024, not %d", s.partitions)
	check(s.concurrency >= 1, "-concurrency must be at least 1, not %d", s.concurrency)
	check(s.deadline > 0, "-deadline must be positive, not %v", s.deadline)
	check(s.grace >= 0, "-grace must not be negative, not %v", s.grace)
	check(s.maxBody >= 1, "-max-body must be at least 1, not %d", s.maxBody)
	check(s.lease > 0, "-lease must be positive, not %v", s.lease)
	check(s.groupLimit >= 0, "-group-limit must not be negative, not %d", s.groupLimit)
	check(origin(s.origin), "-origin must be http:// or https:// and a host, not %q", s.origin)
	check(s.workDelay >= 0, "-work-delay must not be negative, not %v", s.workDelay)
	check(s.renderDelay >= 0, "-render-delay must not be negative, not %v", s.renderDelay)
	check(slices.Contains(keysFrom, s.keys), "-keys must be one of %s, not %q", strings.Join(keysFrom, ", "), s.keys)
	wrong = append(wrong, s.validateReads()...)
	return errors.Join(append(wrong, s.validateRedis()...)...)
}

// validateReads checks the flags that are about how a server reads the cache.
func (s settings) validateReads() []error {
	var wrong []error
	for _, given := range []struct {
		flag string
		is   bool
	}{{"-local-copy", s.localCopy != nil}, {"-warm", s.warm}, {"-redis-replicas", s.redisReplicas != ""}} {
		if given.is && !slices.Contains(servingRoles, s.role) {
			wrong = append(wrong, fmt.Errorf("%s is for -role %s, not for %s", given.flag, strings.Join(servingRoles, " and "), s.role))
		}
	}
	if s.localCopy != nil && *s.localCopy < 0 {
		wrong = append(wrong, fmt.Errorf("-local-copy must not be negative, not %d", *s.localCopy))
	}
	if s.warm && s.localCopy != nil && *s.localCopy == 0 {
		wrong = append(wrong, errors.New("-warm and -local-copy 0 exclude each other"))
	}
	if s.redisReplicas == "" {
		return wrong
	}
	if s.redisURL == "" && s.redisSentinel == "" {
		wrong = append(wrong, errors.New("-redis-replicas needs -redis or -redis-sentinel"))
	}
	for _, one := range strings.Split(s.redisReplicas, ",") {
		if _, err := redis.ParseURL(one); err != nil {
			wrong = append(wrong, fmt.Errorf("-redis-replicas must be URLs as redis://127.0.0.1:6379, separated by commas: %w", err))
		}
	}
	return wrong
}

// validateRedis checks that the flags name one Redis, in one way.
func (s settings) validateRedis() []error {
	var wrong, named = []error(nil), []string(nil)
	if s.redisURL != "" {
		named = append(named, "-redis")
		if _, err := redis.ParseURL(s.redisURL); err != nil {
			wrong = append(wrong, fmt.Errorf("-redis must be a URL as redis://127.0.0.1:6379: %w", err))
		}
	}
	for _, list := range []struct{ flag, addresses string }{
		{"-redis-cluster", s.redisCluster}, {"-redis-sentinel", s.redisSentinel},
	} {
		if list.addresses == "" {
			continue
		}
		named = append(named, list.flag)
		for _, one := range strings.Split(list.addresses, ",") {
			if !address(one) {
				wrong = append(wrong, fmt.Errorf("%s must be host:port separated by commas, not %q", list.flag, one))
			}
		}
	}
	if len(named) > 1 {
		wrong = append(wrong, fmt.Errorf("%s exclude each other", strings.Join(named, " and ")))
	}
	if (s.redisSentinel == "") != (s.redisMaster == "") {
		wrong = append(wrong, errors.New("-redis-sentinel and -redis-master need each other"))
	}
	if len(named) == 0 && s.role != "all" && s.role != "app" {
		wrong = append(wrong, fmt.Errorf("-role %s needs -redis, -redis-cluster or -redis-sentinel", s.role))
	}
	return wrong
}

// address reports whether s is host:port.
func address(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != ""
}

// origin reports whether s is a scheme, a host and perhaps a port, and nothing else.
func origin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && s == u.Scheme+"://"+u.Host
}
