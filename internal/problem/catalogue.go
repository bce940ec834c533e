package problem

import (
	"fmt"
	"net/http"
	"time"
)

// The problems there are. Those that say "was not carried out" promise it: the
// request had no effect and can be sent again. Those with status 503 want a
// Retry-After, which the caller sets.

// NotFound: the cache has no entry for the target.
func NotFound() Problem {
	return Problem{Type: "not-found", Title: "There is no such resource", Status: http.StatusNotFound,
		Detail: "the cache has no entry for this target"}
}

// NotFilled: the cache has no entry, but it was never filled or was lost, so that
// says nothing about the resource.
func NotFilled() Problem {
	return Problem{Type: "not-filled", Title: "The cache is not filled", Status: http.StatusServiceUnavailable,
		Detail: "the cache was never filled or has lost its content, so it is not known whether this resource exists; a worker has to fill it"}
}

// Unsure: the cache has no entry, but Redis has lost writes that it had
// acknowledged, so that says nothing about the resource.
func Unsure() Problem {
	return Problem{Type: "cache-unsure", Title: "The cache may be incomplete", Status: http.StatusServiceUnavailable,
		Detail: "Redis has lost writes that it had acknowledged, so it is not known whether this resource exists; the cache has to be verified or filled"}
}

// Lost: the cache has had an entry for the target, and Redis has it no more.
func Lost() Problem {
	return Problem{Type: "entry-lost", Title: "The entry was lost", Status: http.StatusServiceUnavailable,
		Detail: "the cache knows this resource, but its entry is missing or cannot be decoded; a worker has to render it again"}
}

// StoreUnreachable: Redis did not answer. Said of a request that would have
// become a job only if it surely did not.
func StoreUnreachable() Problem {
	return Problem{Type: "store-unreachable", Title: "The store is unreachable", Status: http.StatusServiceUnavailable,
		Detail: "Redis did not answer in time (option StoreTimeout); the request was not carried out"}
}

// Misconfigured: the program that answers is put together wrongly.
func Misconfigured(detail string) Problem {
	return Problem{Type: "misconfigured", Title: "The service is misconfigured", Status: http.StatusInternalServerError, Detail: detail}
}

// MalformedTarget: the request target is not well-formed.
func MalformedTarget(reason error) Problem {
	return Problem{Type: "malformed-target", Title: "The request target is malformed", Status: http.StatusBadRequest,
		Detail: reason.Error()}
}

// TargetTooLong: the canonical form of the target has more bytes than the limit.
func TargetTooLong(limit int) Problem {
	return Problem{Type: "target-too-long", Title: "The request target is too long", Status: http.StatusRequestURITooLong,
		Detail:  fmt.Sprintf("the canonical form of the request target is over %d bytes (option MaxKeyLength)", limit),
		Members: []Member{{"limit", limit}}}
}

// Misdirected: the host is none of those that are served.
func Misdirected(host string) Problem {
	return Problem{Type: "misdirected", Title: "This host is not served here", Status: http.StatusMisdirectedRequest,
		Detail: fmt.Sprintf("the host %q is not one of those served here (option Hosts)", host)}
}

// BodyTooLarge: the request body has more bytes than the limit.
func BodyTooLarge(limit int64) Problem {
	return Problem{Type: "body-too-large", Title: "The request body is too large", Status: http.StatusRequestEntityTooLarge,
		Detail:  fmt.Sprintf("the request body is over %d bytes (option MaxBody); the request was not carried out", limit),
		Members: []Member{{"limit", limit}}}
}

// BodiesTooLarge: the bodies of all requests under way have as many bytes as
// they may.
func BodiesTooLarge(limit int64) Problem {
	return Problem{Type: "bodies-too-large", Title: "Too many request bodies are under way", Status: http.StatusServiceUnavailable,
		Detail:  fmt.Sprintf("the bodies of the requests under way are over %d bytes together (option BodyMemory); the request was not carried out", limit),
		Members: []Member{{"limit", limit}}}
}

// BodyTimeout: the request body took longer than the limit.
func BodyTimeout(limit time.Duration) Problem {
	return Problem{Type: "body-timeout", Title: "The request body took too long", Status: http.StatusRequestTimeout,
		Detail:  fmt.Sprintf("the request body was not complete after %v (option BodyTimeout); the request was not carried out", limit),
		Members: []Member{{"limit", limit.String()}}}
}

// BodyIncomplete: the request body could not be read to its end.
func BodyIncomplete() Problem {
	return Problem{Type: "body-incomplete", Title: "The request body is incomplete", Status: http.StatusBadRequest,
		Detail: "the request body could not be read to its end; the request was not carried out"}
}

// QueueFull: as many requests are waiting as may.
func QueueFull(limit int) Problem {
	return Problem{Type: "queue-full", Title: "The queue is full", Status: http.StatusServiceUnavailable,
		Detail:  fmt.Sprintf("%d requests are waiting, which is the limit (option QueueLength); the request was not carried out", limit),
		Members: []Member{{"limit", limit}}}
}

// OrderFull: as many requests of one order are waiting as may.
func OrderFull(limit int) Problem {
	return Problem{Type: "order-full", Title: "Too many requests of one order are waiting", Status: http.StatusServiceUnavailable,
		Detail: fmt.Sprintf("%d requests of one order (option Order) are waiting, which is the limit (a tenth of option QueueLength);"+
			" the request was not carried out", limit),
		Members: []Member{{"limit", limit}}}
}

// TooBusy: as many requests are waiting as the workers can carry out in time, by what they did lately.
func TooBusy(deadline time.Duration) Problem {
	return Problem{Type: "too-busy", Title: "The workers are too busy", Status: http.StatusServiceUnavailable,
		Detail:  fmt.Sprintf("so many requests are waiting that this one would hardly be answered within %v (option Deadline); it was not carried out", deadline),
		Members: []Member{{"deadline", deadline.String()}}}
}

// NoWorker: no worker is alive.
func NoWorker() Problem {
	return Problem{Type: "no-worker", Title: "No worker is alive", Status: http.StatusServiceUnavailable,
		Detail: "there is no worker that could carry out the request; the request was not carried out"}
}

// NotStarted: no worker had taken the request at its deadline, and it was
// withdrawn.
func NotStarted(deadline time.Duration) Problem {
	return Problem{Type: "not-started", Title: "The request was withdrawn before it started", Status: http.StatusServiceUnavailable,
		Detail:  fmt.Sprintf("no worker had started after %v (option Deadline); the request was not carried out and never will be", deadline),
		Members: []Member{{"deadline", deadline.String()}}}
}

// Expired: a worker took the request after its deadline, and left it alone.
func Expired() Problem {
	return Problem{Type: "expired", Title: "The request started too late", Status: http.StatusServiceUnavailable,
		Detail: "no worker had started at the deadline; the request was not carried out and never will be"}
}

// StillRunning: a worker was at work on the request at its deadline.
func StillRunning(deadline time.Duration) Problem {
	return Problem{Type: "still-running", Title: "The request is still being carried out", Status: http.StatusGatewayTimeout,
		Detail:  fmt.Sprintf("a worker had not finished after %v (option Deadline); it goes on", deadline),
		Members: []Member{{"deadline", deadline.String()}}}
}

// StillWanted: others wait for the request, who are too many to wait with, or no worker has begun it at the deadline of this one.
func StillWanted() Problem {
	return Problem{Type: "still-wanted", Title: "The request may still be carried out", Status: http.StatusGatewayTimeout,
		Detail: "others who sent the request with the same Idempotency-Key wait for it still; it may be carried out"}
}

// OutcomeUnknown: it could not be found out whether the request was or will be
// carried out.
func OutcomeUnknown() Problem {
	return Problem{Type: "outcome-unknown", Title: "The outcome is unknown", Status: http.StatusGatewayTimeout,
		Detail: "the connection to Redis broke or gave no answer, so the request may have been carried out, may still be, or may never be"}
}

// WorkerDied: the worker is gone, and running the request again could double it.
func WorkerDied() Problem {
	return Problem{Type: "worker-died", Title: "The worker died", Status: http.StatusBadGateway,
		Detail: "the worker that carried out the request is gone, and the request is not repeatable; it may have had its effect"}
}

// ApplicationPanicked: the application's handler panicked.
func ApplicationPanicked() Problem {
	return Problem{Type: "application-panicked", Title: "The application failed", Status: http.StatusInternalServerError,
		Detail: "the application panicked while it carried out the request"}
}

// ApplicationAborted: the application gave up its response, as ReverseProxy does
// when an upstream breaks, or sent less of it than it had declared.
func ApplicationAborted() Problem {
	return Problem{Type: "application-aborted", Title: "The application broke off its response", Status: http.StatusBadGateway,
		Detail: "the application or an upstream of it broke off its response; the request may have had its effect"}
}

// ReplyTooLarge: the application's response has more bytes than the limit.
func ReplyTooLarge(limit int64) Problem {
	return Problem{Type: "reply-too-large", Title: "The application's response is too large", Status: http.StatusBadGateway,
		Detail:  fmt.Sprintf("the body of the application's response is over %d bytes (option MaxReply); the request may have had its effect", limit),
		Members: []Member{{"limit", limit}}}
}

// MalformedIdempotencyKey: the field is not one key.
func MalformedIdempotencyKey(reason error) Problem {
	return Problem{Type: "malformed-idempotency-key", Title: "The Idempotency-Key is malformed", Status: http.StatusBadRequest,
		Detail: reason.Error() + "; the request was not carried out"}
}

// IdempotencyKeyReused: another request came with the same key before.
func IdempotencyKeyReused() Problem {
	return Problem{Type: "idempotency-key-reused", Title: "The Idempotency-Key was used for another request", Status: http.StatusUnprocessableEntity,
		Detail: "another content came with this Idempotency-Key before; the request was not carried out"}
}

// RepliesFull: as many replies are kept as may, or as many requests wait for one.
func RepliesFull(jobs int, bytes int64) Problem {
	return Problem{Type: "replies-full", Title: "No further replies can be kept", Status: http.StatusServiceUnavailable,
		Detail: fmt.Sprintf("%d requests whose replies are kept, or %d bytes of them, are the limit (option MaxReplies); the request was not carried out", jobs, bytes)}
}

// ReplyForgotten: the request was carried out before, and its reply is no longer kept.
func ReplyForgotten() Problem {
	return Problem{Type: "reply-forgotten", Title: "The reply is no longer kept", Status: http.StatusGatewayTimeout,
		Detail: "the request with this Idempotency-Key was carried out before, and its reply has just been forgotten (option KeepReplies)"}
}

// JobUnknown: there is no job with that id, or it is no longer known.
func JobUnknown() Problem {
	return Problem{Type: "job-unknown", Title: "There is no such job", Status: http.StatusNotFound,
		Detail: "there is no job with this id, or it is no longer known (option KeepReplies)"}
}

// MethodNotAllowed: the target has no such method.
func MethodNotAllowed(method string) Problem {
	return Problem{Type: "method-not-allowed", Title: "The method is not allowed here", Status: http.StatusMethodNotAllowed,
		Detail: fmt.Sprintf("the target cannot be asked with the method %q", method)}
}

// MethodNotSupported: the method is one that no server of Scales carries out.
func MethodNotSupported(method string) Problem {
	return Problem{Type: "method-not-supported", Title: "The method is not supported", Status: http.StatusNotImplemented,
		Detail: fmt.Sprintf("the method %q is not supported here", method)}
}

// Reserved: the target is below the prefix that is not the application's.
func Reserved(prefix string) Problem {
	return Problem{Type: "reserved", Title: "The target is reserved", Status: http.StatusNotFound,
		Detail: fmt.Sprintf("targets that begin with %q are reserved, and there is none like this (option ReservedPrefix)", prefix)}
}

// PreconditionFailed: a precondition of the request, If-Match or
// If-Unmodified-Since, is false.
func PreconditionFailed() Problem {
	return Problem{Type: "precondition-failed", Title: "A precondition is false", Status: http.StatusPreconditionFailed,
		Detail: "the current representation is not one that If-Match or If-Unmodified-Since asks for"}
}

// RangeNotSatisfiable: none of the ranges that the request asks for is in a
// content of this size.
func RangeNotSatisfiable(size int) Problem {
	return Problem{Type: "range-not-satisfiable", Title: "The range cannot be satisfied", Status: http.StatusRequestedRangeNotSatisfiable,
		Detail:  fmt.Sprintf("the selected representation has %d bytes, and none of the ranges begins within them", size),
		Members: []Member{{"size", size}}}
}

// Draining: the server is being shut down.
func Draining() Problem {
	return Problem{Type: "draining", Title: "The server is shutting down", Status: http.StatusServiceUnavailable,
		Detail: "the server is shutting down and takes no more requests; the request was not carried out"}
}
