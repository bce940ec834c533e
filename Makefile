# Time for each fuzz target, and the number of histories of a property test. WRITES is that of writes of the mixed load
# (20000) and of the campaigns of faults (10000).
FUZZTIME ?= 60s
HISTORIES ?= 10000

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: check
check: ## Formatting, modules, go vet and staticcheck
	.ci/run format modules dependencies vet staticcheck

.PHONY: test
test: ## All tests; without redis-server those of real Redis are skipped
	go test -shuffle=on ./...

.PHONY: race
race: ## All tests with the race detector
	go test -race -shuffle=on -timeout 20m ./...

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (60s)
	FUZZTIME=$(FUZZTIME) .ci/run fuzz

.PHONY: property
property: ## The fence under HISTORIES (10000) random histories
	go test ./internal/render -count=1 -timeout 0 -v -run '^TestFence$$' -histories $(HISTORIES)

.PHONY: queue-property
queue-property: ## The queue against its model, under HISTORIES (10000) random histories
	go test ./internal/jobqueue -count=1 -timeout 0 -v -run '^TestQueue$$' -queue-histories $(HISTORIES)

.PHONY: soak
soak: ## The fence under 100000 random histories
	$(MAKE) property HISTORIES=100000

.PHONY: load
load: ## WRITES (20000) mixed writes and reads through many processes built with the race detector
	go test ./internal/blackbox -count=1 -timeout 0 -v -run '^TestMixedLoad$$/^single$$' -writes $(or $(WRITES),20000) -race-build

.PHONY: flush
flush: ## FLUSHALL under 64 readers and writers: no 404 for what exists, at any time
	go test ./internal/blackbox -count=1 -timeout 20m -v -run '^TestOnlyAFilledCacheKnowsWhatIsMissing$$/^single$$' -readers 32 -writers 32

.PHONY: away
away: ## Redis away for 10 s under 64 readers of a server with a warm copy
	go test ./internal/blackbox -count=1 -timeout 20m -v -run '^TestAWarmCopyOutlivesRedis$$' -copy-readers 64 -copy-outage 10s

.PHONY: audit
audit: ## Verifies beside WRITES (20000) mixed writes: they find nothing
	go test ./internal/blackbox -count=1 -timeout 0 -v -run '^TestVerifyBesideWritesFindsNothing$$' -writes $(or $(WRITES),20000)

# A campaign of faults: its test, and flags.
campaign = go test ./internal/blackbox -count=1 -timeout 0 -parallel 1 -v -run '^$(1)$$' -fault-writes $(or $(WRITES),10000) $(2)

.PHONY: kill-workers
kill-workers: ## WRITES (10000) while a worker is killed every 300 ms
	$(call campaign,TestWorkersAreKilledAllTheTime)

.PHONY: kill-servers
kill-servers: ## WRITES (10000) while a server is killed every 300 ms
	$(call campaign,TestServersAreKilledAllTheTime)

.PHONY: kill-redis
kill-redis: ## WRITES (10000) while Redis, which syncs always, is killed every 5 s
	$(call campaign,TestRedisIsKilledAgainAndAgain,-redis-life 5s)

.PHONY: bad-network
bad-network: ## WRITES (10000) while connections to Redis break, stall and lose answers
	$(call campaign,TestConnectionsToRedisAreBad)

.PHONY: rolling
rolling: ## WRITES (10000) while all workers and servers are restarted, one after the other, behind a balancer
	$(call campaign,TestARollingRestartShowsNothing)

.PHONY: lose-writes
lose-writes: ## WRITES (10000) while Redis loses what it has acknowledged: in a crash every 5 s, then in a failover
	$(call campaign,TestRedisLosesWritesIn.*,-redis-life 5s)

.PHONY: bench
bench: ## The queue against a plain Redis list
	go run ./internal/bench -run queue

.PHONY: overload
overload: ## Three times as many requests as can be carried out, for a minute
	go run ./internal/bench -run overload

.PHONY: storm
storm: ## 2000 writes to one page at once, with and without shared renders
	go run ./internal/bench -run storm

.PHONY: post
post: ## A POST through server, queue and worker against the bare application
	go run ./internal/bench -run post

.PHONY: workers
workers: ## 1, 2, 4 and 8 workers with one slot each on handlers that wait for 10 ms
	go run ./internal/bench -run workers

.PHONY: group
group: ## 200 writes/s while a group of 10000 entries changes, and while it does not
	go run ./internal/bench -run group

.PHONY: get
get: ## Reads from the local copy against a bare handler
	go run ./internal/bench -run get

.PHONY: get304
get304: ## Answers 304 from the local copy against a bare handler
	go run ./internal/bench -run get304

.PHONY: getredis
getredis: ## Reads from Redis against a handler that does a GET for each
	go run ./internal/bench -run getredis

.PHONY: memory
memory: ## What a million entries need beyond keys and values, in Redis and in a local copy; 4 GB
	go run ./internal/bench -run memory

.PHONY: fill
fill: ## A fill of a trivial application against plain pipelined SETs
	go run ./internal/bench -run fill

.PHONY: propagate
propagate: ## From the commit of a write until a second server serves it, against a PING
	go run ./internal/bench -run propagate

.PHONY: peers
peers: ## A hit against nginx and Varnish, as far as those and wrk are installed
	go run ./internal/bench -run peers

.PHONY: cover
cover: ## Statement coverage of all packages, as cover.out and cover.html
	go test -coverpkg=./... -coverprofile=cover.out ./...
	go tool cover -html=cover.out -o cover.html
	go tool cover -func=cover.out | tail -n 1

.PHONY: ci
ci: ## Everything CI does
	.ci/run
