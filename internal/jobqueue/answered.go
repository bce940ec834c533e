package jobqueue

import "github.com/itscales/scales/internal/streamid"

// mostAnswered is how many callers that were answered are remembered.
const mostAnswered = 10_000

// answered remembers callers that were told what became of their jobs, the latest ones. A later reply to one of them says that Redis has
// lost that the job had ended. If it has lost more than that, the job was carried out once more. It is not safe for concurrent use.
type answered struct {
	records map[string]string // caller to the record with the reply, "" if the job was withdrawn
	order   []string          // the callers, in a ring
	next    int
}

// note remembers that a caller was answered.
func (a *answered) note(caller, record string) {
	if a.records == nil {
		a.records = make(map[string]string)
	}
	if _, known := a.records[caller]; !known {
		if len(a.order) < mostAnswered {
			a.order = append(a.order, caller)
		} else {
			delete(a.records, a.order[a.next])
			a.order[a.next] = caller
			a.next = (a.next + 1) % mostAnswered
		}
	}
	a.records[caller] = record
}

// again reports whether a record with a reply to a caller comes after the caller was answered. The same record may be read twice.
func (a *answered) again(caller, record string) bool {
	before, known := a.records[caller]
	return known && (before == "" || streamid.Less(before, record))
}
