package partition

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// fillScript begins or ends a fill. The record of one that has not ended is the field "filling" of meta: the incarnation
// and a ticket from its beginning.
//
//	ARGV[4] 'look', 'resume', 'anew' or 'end'
//	look    returns {incarnation}
//	resume  begins a fill, or goes on with the one of which there is a record in the present incarnation:
//	        returns {incarnation, ticket of the record, '1' if there was one, else ''}
//	anew    begins a fill whatever is recorded: returns the same
//	end     ARGV[5] incarnation and ARGV[6] ticket with which the fill began: if the incarnation is the present one, the
//	        partition is filled, and the record of this fill is removed; with the ticket '' any record.
//	        Returns {'1'} or, where nothing was done, {''}
//
// The end of a fill leaves the record of another one that has begun anew meanwhile. A begin that is carried out twice
// records a fill that began when it was carried out last. If that comes after the end, a record is left of a fill that
// nobody makes: the next one goes on with it, and does not render what was rendered since.
const fillScript = `
if ARGV[4] == 'look' then return {incarnation} end
local record = redis.call('HGET', meta, 'filling') or ''
if ARGV[4] == 'end' then
  if ARGV[5] ~= incarnation then return {''} end
  redis.call('HSET', meta, 'filled', incarnation)
  if ARGV[6] == '' or record == ARGV[5] .. ' ' .. ARGV[6] then redis.call('HDEL', meta, 'filling') end
  return {'1'}
end
local ticket = string.match(record, '^' .. incarnation .. ' (%d+)$')
if ticket and ARGV[4] == 'resume' then return {incarnation, ticket, '1'} end
ticket = tick()
redis.call('HSET', meta, 'filling', incarnation .. ' ' .. ticket)
return {incarnation, ticket, ''}
`

// A Filling is a fill of a partition that has begun.
type Filling struct {
	// Position is the incarnation in which it began, and a ticket from its beginning: what is stored with a higher one was
	// asked for since.
	Position

	// Resumed is true if it had begun before, and not ended.
	Resumed bool
}

// Began returns when the fill began, by Redis's clock.
func (f Filling) Began() time.Time {
	microseconds, _ := strconv.ParseInt(f.Ticket, 10, 64)
	return time.UnixMicro(microseconds)
}

// Filled reports whether the partition was filled, and whether Redis has lost writes since, so that it is not any more.
func (p *Partition) Filled(ctx context.Context) (filled, unsure bool, err error) {
	reply, err := p.run(ctx, p.store.scripts.read, []string{p.names.index, p.names.log})
	if err != nil {
		return false, false, err
	}
	return text(reply[0]) == "1", text(reply[0]) == "unsure", nil
}

// Filling returns the fill that has begun and not ended, and whether there is one.
func (p *Partition) Filling(ctx context.Context) (Filling, bool, error) {
	fields, err := p.store.config.Client.HMGet(ctx, p.names.meta, "incarnation", "filling").Result()
	if err != nil {
		return Filling{}, false, err
	}
	incarnation, ticket, found := strings.Cut(text(fields[1]), " ")
	if !found || incarnation != text(fields[0]) {
		return Filling{}, false, nil
	}
	return Filling{Position: Position{incarnation, ticket}, Resumed: true}, true, nil
}

// Incarnation returns the incarnation of the partition's clock, which it makes if there is none.
func (p *Partition) Incarnation(ctx context.Context) (string, error) {
	reply, err := p.run(ctx, p.store.scripts.fill, nil, "look")
	if err != nil {
		return "", err
	}
	return text(reply[0]), nil
}

// BeginFill records that a fill has begun. It goes on with one that has not ended, unless it is to begin anew.
func (p *Partition) BeginFill(ctx context.Context, anew bool) (Filling, error) {
	how := "resume"
	if anew {
		how = "anew"
	}
	reply, err := p.run(ctx, p.store.scripts.fill, nil, how)
	if err != nil {
		return Filling{}, err
	}
	return Filling{Position: Position{text(reply[0]), text(reply[1])}, Resumed: text(reply[2]) == "1"}, nil
}

// MarkFilled marks the partition as filled, if it is still in the incarnation in which the fill began, and removes the
// record of that fill in the same step; with an empty ticket that of any.
func (p *Partition) MarkFilled(ctx context.Context, began Position) (bool, error) {
	reply, err := p.run(ctx, p.store.scripts.fill, nil, "end", began.Incarnation, began.Ticket)
	if err != nil {
		return false, err
	}
	return text(reply[0]) == "1", nil
}
